"""Rows of JSON with boxes given by their centers, as in CreateML and Roboflow's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, floats
from molmo_tune.labels.sample import Box

Row = Mapping[str, Any]


def list_of_rows(value: object, path: Path) -> list[Row]:
    """Return a JSON list of objects.

    Raises:
        UserError: the value is not one.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(path, "not a list of objects", "JSON of CreateML or Roboflow predictions")
    return value


def text_of(value: object) -> str:
    """Return a string without surrounding blanks; anything else becomes empty."""
    return value.strip() if isinstance(value, str) else ""


def box_of_center(row: Row) -> Box:
    """Return the box in pixels of ``x, y, width, height``, where ``x, y`` is its center.

    Raises:
        DroppedRowError: a number is missing, or a side is negative.
    """
    x, y, width, height = floats([row.get(name) for name in ("x", "y", "width", "height")])
    if width < 0 or height < 0:
        raise DroppedRowError(NEGATIVE)
    return Box((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
