"""LabelMe JSON: one file per image.

    {"imagePath": "..\\\\images\\\\a.jpg", "imageWidth": 640, "imageHeight": 480, "shapes": [
        {"label": "cat", "shape_type": "polygon", "points": [[1, 1], …], "group_id": null}]}

Shapes: pixels from 0. A rectangle has two opposite corners (four in newer versions), a circle its
    center and a point on its edge, a mask the corners of its box and a PNG in base64. Polygons and
    rectangles of one label with the same ``group_id`` are parts of one object. Flags and
    descriptions are not read.
Media: ``imagePath`` is relative to the label file, often with ``..``; only its last part is looked
    up in the media folder. ``imageData``, a copy of the image, is not read.
Dropped: lines and linestrips, which have no inside; shapes of several points, which are ambiguous.
Exhaustive labels: none.
Source: wkentaro/labelme on GitHub.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.formats.cvat._shapes import NO_INSIDE, SEVERAL_POINTS, UNKNOWN_SHAPE
from molmo_tune.labels.geometry.masks import pack
from molmo_tune.labels.geometry.shapes import XY, SizeWH, ellipse
from molmo_tune.labels.image_objects import (
    TOO_FEW_CORNERS,
    DroppedRowError,
    Objects,
    floats,
    open_objects,
    stated_size,
)
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Mask, Point, Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER

BAD_MASK = "the mask is not a PNG that fits the image"

Row = Mapping[str, Any]


def looks_like_labelme(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    is_cvat = re.search(r'"(label_id|tracks)"\s*:', head)
    has_shapes = re.search(r'"shapes"\s*:\s*\[', head)
    return head.lstrip().startswith("{") and bool(has_shapes) and not is_cvat


def read_labelme(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, as a list of at most one.

    Raises:
        UserError: the file is not JSON of this format.
    """
    data = read_json(path)
    shapes = data.get("shapes") if isinstance(data, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise UserError(path, "no list of shapes", "LabelMe JSON")
    name = re.split(r"[/\\]", str(data.get("imagePath") or ""))[-1]
    size = stated_size(data.get("imageWidth"), data.get("imageHeight"))
    names = [name] if name not in ("", "..") else []
    objects = open_objects(media, names, str(path), size, tally)
    groups: dict[object, list[tuple[int, Row]]] = {}
    for number, shape in enumerate(shapes, 1):
        groups.setdefault(_object_of(shape, number), []).append((number, shape))
    for group in groups.values():
        _add(group, objects, path)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _object_of(shape: Row, number: int) -> object:
    """Return a key that parts of one object share."""
    group = shape.get("group_id")
    has_parts = shape.get("shape_type") in ("polygon", "rectangle") and isinstance(group, int | str)
    return (str(shape.get("label")), group) if has_parts else number


def _add(group: Sequence[tuple[int, Row]], objects: Objects, path: Path) -> None:
    rows = [row for _, row in group]
    places = [f"{path}: shape {number}" for number, _ in group]
    label, kinds = str(rows[0].get("label") or "").strip(), [_kind(row) for row in rows]

    def make(size_wh: SizeWH) -> Shape:
        shapes = [_shape(row, size_wh) for row in rows]
        return shapes[0] if len(shapes) == 1 else Polygon(tuple(map(_part, shapes)))

    is_kept = objects.add(label, kinds[0], places[0], make)
    for kind, place in zip(kinds[1:], places[1:], strict=True):
        if is_kept:
            objects.read(label, kind).keep()
        else:
            objects.drop(label, kind, place, "another part of the object was dropped")


def _kind(row: Row) -> str:
    return str(row.get("shape_type") or "polygon")


def _part(shape: Shape) -> tuple[XY, ...]:
    if isinstance(shape, Polygon):
        return shape.parts_px[0]
    assert isinstance(shape, Box)
    left, top, right, bottom = shape.xyxy_px
    return (left, top), (right, top), (right, bottom), (left, bottom)


def _shape(row: Row, size_wh: SizeWH) -> Shape:
    points, kind = _points(row.get("points")), _kind(row)
    if kind == "polygon" or (kind == "rectangle" and len(points) == 4):
        if len(points) < 3:
            raise DroppedRowError(TOO_FEW_CORNERS)
        return Polygon((tuple(points),))
    if kind in ("line", "linestrip"):
        raise DroppedRowError(NO_INSIDE)
    if kind in ("point", "points"):
        if len(points) != 1:
            raise DroppedRowError(SEVERAL_POINTS if points else NOT_A_NUMBER)
        return Point(points[0])
    if kind not in ("rectangle", "circle", "mask"):
        raise DroppedRowError(UNKNOWN_SHAPE)
    if len(points) != 2:
        raise DroppedRowError(NOT_A_NUMBER)
    (x, y), (u, v) = points
    if kind == "circle":
        radius = math.hypot(u - x, v - y)
        return ellipse((x, y), (radius, radius))
    if kind == "mask":
        return _mask(row.get("mask"), (x, y), size_wh)
    return Box((min(x, u), min(y, v), max(x, u), max(y, v)))


def _points(value: object) -> list[XY]:
    if not isinstance(value, list):
        raise DroppedRowError(NOT_A_NUMBER)
    pairs = [floats(pair, 2) for pair in value]
    return [(x, y) for x, y in pairs]


def _mask(text: object, left_top: XY, size_wh: SizeWH) -> Mask:
    """Return the mask of a base64 PNG (not 0 on the object), placed at its corner in the image."""
    try:
        with Image.open(BytesIO(base64.b64decode(str(text), validate=True))) as image:
            left, top = int(left_top[0]), int(left_top[1])
            right, bottom = left + image.width, top + image.height
            if min(left, top) < 0 or right > size_wh[0] or bottom > size_wh[1]:
                raise DroppedRowError(BAD_MASK)
            crop = np.asarray(image.convert("L")) > 0
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise DroppedRowError(BAD_MASK) from error
    pixels = np.zeros(size_wh[::-1], np.bool_)
    pixels[top:bottom, left:right] = crop
    return pack(pixels)


READER = Reader(
    one_by_one(read_labelme), looks_like_labelme, "*.json", "LabelMe (JSON with shapes)"
)
