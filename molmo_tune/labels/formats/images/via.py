"""VGG Image Annotator (VIA) 1 and 2: JSON by image, a project file, or CSV with JSON in cells.

    {"a.jpg1234": {"filename": "a.jpg", "size": 1234, "regions": [
        {"shape_attributes": {"name": "rect", "x": 2, "y": 3, "width": 4, "height": 5},
         "region_attributes": {"label": "cat"}}]}}

Shapes: pixels from 0; rect, circle, ellipse (``theta`` in radians), polygon and point. No image
    size is stated. ``regions`` is a list, or an object in version 1. The project file has all this
    in ``_via_img_metadata``; the CSV has a row per region, and one with an empty shape for an image
    without regions.
Labels: a region's only attribute, or the first of label, class, category, type and name. Of
    checkboxes exactly one must be ticked.
Media: images are named like ``filename``.
Dropped: polylines, which have no inside; regions without a label.
Exhaustive labels: none.
Source: the VGG Image Annotator of the University of Oxford.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.formats.cvat._shapes import NO_INSIDE, UNKNOWN_SHAPE
from molmo_tune.labels.geometry.shapes import ellipse
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, Objects, floats, open_objects
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Point, Polygon, Sample, Shape

LABEL_ATTRIBUTES = ("label", "class", "category", "type", "name")
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")

Row = Mapping[str, Any]


def looks_like_via(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    if head.lstrip().startswith("{"):
        has_images = re.search(r'"filename"\s*:', head) and re.search(r'"regions"\s*:', head)
        return bool(has_images) or '"_via_img_metadata"' in head
    return "region_shape_attributes" in head.split("\n", 1)[0]


def read_via(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per image with regions, in file order.

    Raises:
        UserError: the file is not JSON or CSV of this format, or a name points outside the media
            folder.
    """
    text = read_text(path)
    is_json = text.lstrip().startswith("{")
    images = _from_json(path) if is_json else _from_csv(text, path)
    media.check_single_file(len(images), path)
    samples = [_sample(name, regions, path, media, tally) for name, regions in images]
    return [sample for sample in samples if sample is not None]


def _from_json(path: Path) -> list[tuple[str, list[Row]]]:
    data = read_json(path)
    data = data.get("_via_img_metadata", data)
    images = list(data.values()) if isinstance(data, dict) else []
    if not images or not all(isinstance(image, dict) and "regions" in image for image in images):
        raise UserError(path, "images without regions", "JSON of the VGG Image Annotator")
    return [
        (str(image.get("filename") or ""), _regions(image["regions"], path)) for image in images
    ]


def _regions(value: object, path: Path) -> list[Row]:
    regions = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
        raise UserError(path, "regions is not a list of objects", "JSON of the VGG Image Annotator")
    return regions


def _from_csv(text: str, path: Path) -> list[tuple[str, list[Row]]]:
    rows = csv.DictReader(StringIO(text, newline=""))
    names = [name.lstrip("#") for name in rows.fieldnames or ()]
    if not set(_COLUMNS) <= set(names):
        raise UserError(f"{path}:1", "other columns", f"CSV of VIA with {', '.join(_COLUMNS)}")
    rows.fieldnames = names
    images: dict[str, list[Row]] = {}
    try:
        for row in rows:
            regions = images.setdefault(row["filename"] or "", [])
            shape = _cell(row["region_shape_attributes"], f"{path}:{rows.line_num}")
            if shape:
                attributes = _cell(row["region_attributes"], f"{path}:{rows.line_num}")
                regions.append({"shape_attributes": shape, "region_attributes": attributes})
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}", f"not valid CSV ({error})") from error
    return list(images.items())


def _cell(text: str | None, where: str) -> Row:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UserError(where, "a cell is not JSON", "CSV of the VGG Image Annotator") from error
    return value if isinstance(value, dict) else {}


def _sample(
    name: str, regions: Iterable[Row], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    objects = open_objects(media, [name] if name else [], f"{path}: image {name}", None, tally)
    for number, region in enumerate(regions, 1):
        _add(region, f"{path}: image {name}, region {number}", objects)
    return objects.sample()


def _add(region: Row, place: str, objects: Objects) -> None:
    shape, attributes = region.get("shape_attributes"), region.get("region_attributes")
    shape = shape if isinstance(shape, dict) else {}
    label = _label(attributes if isinstance(attributes, dict) else {})
    objects.add(label, str(shape.get("name") or "shape"), place, lambda _: _shape(shape))


def _label(attributes: Row) -> str:
    names = [name for name in LABEL_ATTRIBUTES if attributes.get(name)]
    values = list(attributes.values()) if len(attributes) == 1 else []
    value = attributes[names[0]] if names else values[0] if values else ""
    if isinstance(value, dict):
        ticked = [name for name, is_ticked in value.items() if is_ticked]
        value = ticked[0] if len(ticked) == 1 else ""
    return str(value).strip() if isinstance(value, str | int) else ""


def _shape(shape: Row) -> Shape:
    def values(*names: str) -> list[float]:
        return floats([shape.get(name) for name in names])

    match shape.get("name"):
        case "rect":
            left, top, width, height = values("x", "y", "width", "height")
            if width < 0 or height < 0:
                raise DroppedRowError(NEGATIVE)
            return Box((left, top, left + width, top + height))
        case "circle":
            x, y, radius = values("cx", "cy", "r")
            return ellipse((x, y), (abs(radius), abs(radius)))
        case "ellipse":
            x, y, across, down = values("cx", "cy", "rx", "ry")
            turn = math.degrees(floats([shape.get("theta") or 0])[0])
            return ellipse((x, y), (abs(across), abs(down)), turn)
        case "point":
            x, y = values("cx", "cy")
            return Point((x, y))
        case "polygon":
            xs, ys = floats(shape.get("all_points_x")), floats(shape.get("all_points_y"))
            if len(xs) != len(ys) or len(xs) < 3:
                raise DroppedRowError("a polygon without three corners")
            return Polygon((tuple(zip(xs, ys, strict=True)),))
        case "polyline":
            raise DroppedRowError(NO_INSIDE)
    raise DroppedRowError(UNKNOWN_SHAPE)


READER = Reader(
    one_by_one(read_via), looks_like_via, "*.[jc]s[ov]*", "VGG Image Annotator 1 and 2 (JSON, CSV)"
)
