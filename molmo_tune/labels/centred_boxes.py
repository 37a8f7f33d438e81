"""CreateML and Roboflow's predictions: JSON whose boxes are centre, width and height in pixels.

    [{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates":
        {"x": 4, "y": 5, "width": 4, "height": 5}}]}]                                CreateML

    {"image": {"width": 640, "height": 480}, "predictions": [{"class": "cat", "x": 4, "y": 5,
        "width": 4, "height": 5, "confidence": 0.9, "points": [{"x": 1, "y": 1}, …],
        "keypoints": [{"class": "nose", "x": 4, "y": 5, "confidence": 0.8}]}]}       predictions

``x, y`` is the centre of the box, not its corner. Where a prediction has ``points``, these are the
corners of its polygon, and the box only surrounds it. A file of predictions is about the image
named like it; that a model made the labels is noted. ``exhaustive_labels``: none are set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.images import (
    NEGATIVE,
    LostError,
    MakeShape,
    Objects,
    corners_of,
    floats,
    open_objects,
    stated_size,
)
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.opening import read_json
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER

BY_MODEL = "read from a model's predictions"

Row = Mapping[str, Any]


def looks_like_createml(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return head.lstrip().startswith("[") and bool(re.search(r'"coordinates"\s*:\s*\{', head))


def looks_like_roboflow_hosted(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    has_list = head.lstrip().startswith("{") and re.search(r'"predictions"\s*:\s*\[', head)
    return bool(has_list and re.search(r'"(confidence|class)"\s*:', head))


def read_createml(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per image with boxes.

    Raises:
        UserError: the file is not such JSON, or a name climbs out of the media folder.
    """
    images = _listed(read_json(path), path)
    media.check_number(len(images), path)
    samples = []
    for number, image in enumerate(images, 1):
        name = image.get("image") or image.get("imagefilename")
        names = [name] if isinstance(name, str) else []
        objects = open_objects(media, names, f"{path}: image {number}", None, tally)
        rows = _listed(image.get("annotations") or image.get("annotation") or [], path)
        for index, row in enumerate(rows, 1):
            box = row.get("coordinates")
            box = box if isinstance(box, dict) else {}
            place = f"{path}: image {number}, annotation {index}"
            objects.add(_text(row.get("label")), "box", place, _box_maker(box))
        samples.append(objects.sample())
    return [sample for sample in samples if sample is not None]


def read_roboflow_hosted(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The sample of a file, if it has predictions.

    Raises:
        UserError: the file is not such JSON.
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
    for number, row in enumerate(_listed(data["predictions"], path), 1):
        _add(row, f"{path}: prediction {number}", objects)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _listed(value: object, path: Path) -> list[Row]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(path, "no list of objects", "JSON of CreateML or of Roboflow's predictions")
    return value


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _add(row: Row, place: str, objects: Objects) -> None:
    points, keypoints = row.get("points"), row.get("keypoints")
    kind = "keypoints" if keypoints else "polygon" if points else "box"

    def make(_: object) -> Shape:
        extent = Polygon((corners_of(_pairs(points)),)) if points else _box(row)
        return Keypoints(tuple(_keypoints(keypoints)), extent) if keypoints else extent

    objects.add(_text(row.get("class")), kind, place, make)


def _box_maker(row: Row) -> MakeShape:
    return lambda _: _box(row)


def _box(row: Row) -> Box:
    x, y, width, height = floats([row.get(name) for name in ("x", "y", "width", "height")])
    if width < 0 or height < 0:
        raise LostError(NEGATIVE)
    return Box((x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _pairs(rows: object) -> list[float]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LostError(NOT_A_NUMBER)
    return floats([row.get(name) for row in rows for name in ("x", "y")])


def _keypoints(rows: object) -> list[Keypoint]:
    flat = _pairs(rows)
    assert isinstance(rows, list)
    names = [_text(row.get("class") or row.get("class_name")) for row in rows]
    return [
        Keypoint(name or str(number + 1), (flat[2 * number], flat[2 * number + 1]))
        for number, name in enumerate(names)
    ]
