"""PixMo-Points of Ai2, as Parquet or JSONL: the points of one label in one image per row.

    {"image_url": "https://…/a.jpg", "image_sha256": "…", "label": "cats", "count": 2,
     "points": [{"x": 50.1, "y": 20.3}, {"x": 7.0, "y": 9.0}]}

Points: percent of the image's width and height. The dataset card says pixels, but Ai2's loader,
    which the model was trained with, reads percent. Like the loader, this reader moves points
    slightly outside to the edge; they count as corrected.
Media: the images are not in the files; download them and name them like their SHA-256 or the last
    part of their URL, with or without an extension.
Refused: files with a coordinate above 110, which cannot be percent.
Dropped: counts without points.
Exhaustive labels: labels whose row has as many points as its ``count``, including 0, because
    annotators pointed at every object.
Source: Ai2's loader and the card of ``allenai/pixmo-points``.
"""

from __future__ import annotations

from functools import partial

from molmo_tune.labels.formats.ai2._pixmo import looks_like_pixmo, read_pixmo
from molmo_tune.labels.geometry.shapes import XY
from molmo_tune.labels.image_objects import DroppedRowError, floats
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.tracks import NOT_A_NUMBER


def _percent_points(value: object) -> list[XY]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DroppedRowError(NOT_A_NUMBER)
    pairs = [floats([item.get("x"), item.get("y")]) for item in value]
    return [(x, y) for x, y in pairs]


READER = Reader(
    partial(read_pixmo, points_of=_percent_points, percent=True),
    partial(looks_like_pixmo, bracket="["),
    "*.[jp][as][ro]*",
    "PixMo-Points (Parquet, JSONL)",
)
