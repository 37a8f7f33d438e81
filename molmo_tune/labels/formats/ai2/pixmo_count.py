"""PixMo-Count: `formats.ai2._pixmo` with points in pixels, as two lists ``x`` and ``y``."""

from __future__ import annotations

from functools import partial

from molmo_tune.labels.formats.ai2._pixmo import looks_like_pixmo, read_pixmo
from molmo_tune.labels.geometry.shapes import XY
from molmo_tune.labels.image_objects import LostError, floats
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.tracks import NOT_A_NUMBER


def _pixel_points(value: object) -> list[XY]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise LostError(NOT_A_NUMBER)
    xs, ys = floats(value.get("x") or []), floats(value.get("y") or [])
    if len(xs) != len(ys):
        raise LostError(NOT_A_NUMBER)
    return list(zip(xs, ys, strict=True))


READER = Reader(
    partial(read_pixmo, points_of=_pixel_points, percent=False),
    partial(looks_like_pixmo, bracket="{"),
    "*.[jp][as][ro]*",
    "PixMo-Count (Parquet, JSONL)",
)
