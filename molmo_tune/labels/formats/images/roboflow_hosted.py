"""Predictions of Roboflow's hosted models: a JSON file per image.

    {"image": {"width": 640, "height": 480}, "predictions": [{"class": "cat", "x": 4, "y": 5,
        "width": 4, "height": 5, "confidence": 0.9, "points": [{"x": 1, "y": 1}, …],
        "keypoints": [{"class": "nose", "x": 4, "y": 5, "confidence": 0.8}]}]}

Boxes: pixels; ``x, y`` is the center of the box, not its corner. With ``points`` the object is the
    polygon of these corners, and the box is not read. ``keypoints`` are named points.
Media: the image is named like the file.
Noted: the labels are a model's.
Exhaustive labels: none.
Source: the documentation of Roboflow's hosted inference API.
"""

from __future__ import annotations

import re
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.formats.images._centered_boxes import (
    Row,
    box_of_center,
    list_of_rows,
    text_of,
)
from molmo_tune.labels.image_objects import (
    DroppedRowError,
    Objects,
    corners_of,
    floats,
    open_objects,
    stated_size,
)
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Keypoint, Keypoints, Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER

BY_MODEL = "a model's predictions, not labels made by a person"


def looks_like_roboflow_hosted(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    has_list = head.lstrip().startswith("{") and re.search(r'"predictions"\s*:\s*\[', head)
    return bool(has_list and re.search(r'"(confidence|class)"\s*:', head))


def read_roboflow_hosted(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, as a list of at most one.

    Raises:
        UserError: the file is not JSON of this format.
    """
    data = read_json(path)
    if not isinstance(data, dict) or "predictions" not in data:
        raise UserError(path, "no predictions", "JSON of Roboflow's hosted models")
    image = data.get("image")
    sides = [image.get(side) for side in ("width", "height")] if isinstance(image, dict) else []
    whole = [int(v) if isinstance(v, str) and v.isdecimal() and len(v) < 10 else v for v in sides]
    size = stated_size(*whole) if whole else None
    names = [path.stem, *(path.stem + suffix for suffix in IMAGE_SUFFIXES)]
    objects = open_objects(media, names, str(path), size, tally)
    tally.note(BY_MODEL, str(path))
    for number, row in enumerate(list_of_rows(data["predictions"], path), 1):
        _add(row, f"{path}: prediction {number}", objects)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _add(row: Row, place: str, objects: Objects) -> None:
    points, keypoints = row.get("points"), row.get("keypoints")
    kind = "keypoints" if keypoints else "polygon" if points else "box"

    def make(_: object) -> Shape:
        extent = Polygon((corners_of(_pairs(points)),)) if points else box_of_center(row)
        return Keypoints(tuple(_keypoints(keypoints)), extent) if keypoints else extent

    objects.add(text_of(row.get("class")), kind, place, make)


def _pairs(rows: object) -> list[float]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DroppedRowError(NOT_A_NUMBER)
    return floats([row.get(name) for row in rows for name in ("x", "y")])


def _keypoints(rows: object) -> list[Keypoint]:
    flat = _pairs(rows)
    assert isinstance(rows, list)
    names = [text_of(row.get("class") or row.get("class_name")) for row in rows]
    return [
        Keypoint(name or str(number + 1), (flat[2 * number], flat[2 * number + 1]))
        for number, name in enumerate(names)
    ]


READER = Reader(
    one_by_one(read_roboflow_hosted),
    looks_like_roboflow_hosted,
    "*.json",
    "Roboflow predictions (JSON per image)",
)
