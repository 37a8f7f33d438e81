"""PixMo-Count of Ai2, as Parquet or JSONL: the points of one label in one image per row.

    {"image_url": "https://…/a.jpg", "image_sha256": "…", "label": "cats", "count": 2,
     "points": {"x": [310.5, 20.0], "y": [101.2, 33.0]}}

Points: pixels from 0 (percent in PixMo-Points).
Media: the images are not in the files; download them and name them like their SHA-256 or the last
    part of their URL, with or without an extension.
Dropped: counts without points, as in all rows outside the training split.
Exhaustive labels: labels whose row has as many points as its ``count``, including 0.
Source: Ai2's loader and the card of ``allenai/pixmo-count``.
"""

from __future__ import annotations

from functools import partial

from molmo_tune.labels.formats.ai2._pixmo import looks_like_pixmo, read_pixmo
from molmo_tune.labels.geometry.shapes import XY
from molmo_tune.labels.image_objects import DroppedRowError, floats
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.tracks import NOT_A_NUMBER


def _pixel_points(value: object) -> list[XY]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise DroppedRowError(NOT_A_NUMBER)
    xs, ys = floats(value.get("x") or []), floats(value.get("y") or [])
    if len(xs) != len(ys):
        raise DroppedRowError(NOT_A_NUMBER)
    return list(zip(xs, ys, strict=True))


READER = Reader(
    partial(read_pixmo, points_of=_pixel_points, percent=False),
    partial(looks_like_pixmo, bracket="{"),
    "*.[jp][as][ro]*",
    "PixMo-Count (Parquet, JSONL)",
)
