"""LabelMe JSON: one file per image, shapes in pixels counted from 0.

    {"imagePath": "..\\\\images\\\\a.jpg", "imageWidth": 640, "imageHeight": 480, "shapes": [
        {"label": "cat", "shape_type": "polygon", "points": [[1, 1], …], "group_id": null}]}

``rectangle`` has two opposite corners (newer versions four), ``circle`` its center and a place on
the rim, ``point`` one point, ``mask`` the corners of its box and a PNG of it in base64. Polygons
and rectangles of one label with the same ``group_id`` are parts of one object. ``line`` and
``linestrip`` have no inside, ``points`` of several is ambiguous: both are losses.

The image is named by its place as seen from the label file, often with ``..``: only the last part
is looked up in the media folder. ``imageData``, a copy of the image, is not read. Flags and
descriptions have no place in a sample. ``exhaustive_labels``: LabelMe promises nothing, none are
set.
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
    LostError,
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

BAD_MASK = "the picture of the mask does not fit its box"

Row = Mapping[str, Any]


def looks_like_labelme(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    is_cvat = re.search(r'"(label_id|tracks)"\s*:', head)
    has_shapes = re.search(r'"shapes"\s*:\s*\[', head)
    return head.lstrip().startswith("{") and bool(has_shapes) and not is_cvat


def read_labelme(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The sample of a file, if it has shapes.

    Raises:
        UserError: the file is not such JSON.
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
    """What is equal for parts of one object."""
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
            objects.drop(label, kind, place, "another part of the object was lost")


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
            raise LostError(TOO_FEW_CORNERS)
        return Polygon((tuple(points),))
    if kind in ("line", "linestrip"):
        raise LostError(NO_INSIDE)
    if kind in ("point", "points"):
        if len(points) != 1:
            raise LostError(SEVERAL_POINTS if points else NOT_A_NUMBER)
        return Point(points[0])
    if kind not in ("rectangle", "circle", "mask"):
        raise LostError(UNKNOWN_SHAPE)
    if len(points) != 2:
        raise LostError(NOT_A_NUMBER)
    (x, y), (u, v) = points
    if kind == "circle":
        radius = math.hypot(u - x, v - y)
        return ellipse((x, y), (radius, radius))
    if kind == "mask":
        return _mask(row.get("mask"), (x, y), size_wh)
    return Box((min(x, u), min(y, v), max(x, u), max(y, v)))


def _points(value: object) -> list[XY]:
    if not isinstance(value, list):
        raise LostError(NOT_A_NUMBER)
    pairs = [floats(pair, 2) for pair in value]
    return [(x, y) for x, y in pairs]


def _mask(text: object, left_top: XY, size_wh: SizeWH) -> Mask:
    """A PNG whose pixels are not 0 where the object is, laid onto the image."""
    try:
        with Image.open(BytesIO(base64.b64decode(str(text), validate=True))) as picture:
            left, top = int(left_top[0]), int(left_top[1])
            right, bottom = left + picture.width, top + picture.height
            if min(left, top) < 0 or right > size_wh[0] or bottom > size_wh[1]:
                raise LostError(BAD_MASK)
            crop = np.asarray(picture.convert("L")) > 0
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise LostError(BAD_MASK) from error
    pixels = np.zeros(size_wh[::-1], np.bool_)
    pixels[top:bottom, left:right] = crop
    return pack(pixels)


READER = Reader(
    one_by_one(read_labelme), looks_like_labelme, "*.json", "LabelMe (JSON with shapes)"
)
