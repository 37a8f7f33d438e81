"""PixMo-Points: `formats.ai2._pixmo` with points in percent, as a list of ``{x, y}``."""

from __future__ import annotations

from functools import partial

from molmo_tune.labels.formats.ai2._pixmo import looks_like_pixmo, read_pixmo
from molmo_tune.labels.geometry.shapes import XY
from molmo_tune.labels.image_objects import LostError, floats
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.tracks import NOT_A_NUMBER


def _percent_points(value: object) -> list[XY]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise LostError(NOT_A_NUMBER)
    pairs = [floats([item.get("x"), item.get("y")]) for item in value]
    return [(x, y) for x, y in pairs]


READER = Reader(
    partial(read_pixmo, points_of=_percent_points, percent=True),
    partial(looks_like_pixmo, bracket="["),
    "*.[jp][as][ro]*",
    "PixMo-Points (Parquet, JSONL)",
)
