"""COCO JSON of images: boxes, polygons, masks and keypoints.

    {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}],
     "categories": [{"id": 18, "name": "dog", "keypoints": ["nose", …]}],
     "annotations": [{"image_id": 1, "category_id": 18, "bbox": [x, y, width, height],
                      "segmentation": …, "keypoints": [x, y, v, …], "iscrowd": 0}]}

Coordinates: pixels, origin at the top left.
Objects: ``segmentation`` is a list of polygons, run lengths as a list or text (`geometry.masks`),
    or empty; then the box is the object. A keypoint's ``v`` is 0 for not labeled (its 0, 0 is not a
    place), 1 for hidden, 2 for visible. A category is a label only if an annotation has it:
    Roboflow exports the project's name as category 0.
Skipped: groups (``iscrowd: 1``).
Dropped: annotations whose image or category is not listed, or without a usable shape. An unusable
    segmentation is replaced by the box, and counted as corrected.
Exhaustive labels: none, except in LVIS, per image: labels in ``neg_category_ids`` (verified absent)
    and present labels outside ``not_exhaustive_category_ids``.
Limitations: files with ``videos`` are a different format.
Source: COCO's data format (cocodataset.org), LVIS's dataset page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.geometry.frame_masks import mask_of
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import (
    GROUP,
    NEGATIVE,
    DroppedRowError,
    Objects,
    corners_of,
    floats,
    open_objects,
    stated_size,
)
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Mask, Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER

UNKNOWN_IMAGE = "image not in the list of images"
UNKNOWN_CATEGORY = "category not in the list of categories"
NO_SHAPE = "no bbox, segmentation or keypoints"
BOX_INSTEAD = "unusable segmentation replaced by the box"
BAD_RUNS = "mask run lengths do not match the image size"
BAD_KEYPOINTS = "keypoints do not match the category's names"

_IDS = (int, str)

Row = Mapping[str, Any]


def looks_like_coco(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    if not head.lstrip().startswith("{") or re.search(r'"videos"\s*:\s*\[\s*\{', head):
        return False
    if re.search(r'"categories"\s*:\s*\{', head):  # Datumaro's
        return False
    lists = re.search(r'"(images|annotations)"\s*:\s*\[', head)
    return bool(lists and re.search(r'"(file_name|image_id|category_id|categories)"\s*:', head))


@dataclass(frozen=True, slots=True)
class _Category:
    name: str
    keypoints: tuple[str, ...]


def read_coco(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per image with annotations or exhaustive labels, in the images' order.

    Raises:
        UserError: the file is not COCO JSON, or a name points outside the media folder.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise UserError(path, "no list of images", "images, annotations and categories")
    if data.get("videos"):
        raise UserError(path, "has a list of videos", "COCO JSON of images")
    images, rows = _listed(data, "images", path), _listed(data, "annotations", path)
    categories = _categories(_listed(data, "categories", path), path)
    by_image = _by_image(rows, images, categories, path, tally)
    media.check_single_file(len(images), path)
    file = str(path)
    found = (
        _sample(i, by_image[_key(i.get("id"))], categories, file, media, tally) for i in images
    )
    return [sample for sample in found if sample is not None]


def _listed(data: Row, name: str, path: Path) -> list[Row]:
    value = data.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(path, f"{name} is not a list of objects", "COCO JSON")
    return value


def _categories(rows: list[Row], path: Path) -> dict[object, _Category]:
    categories = {}
    for row in rows:
        name, keypoints = row.get("name"), row.get("keypoints") or []
        if not isinstance(name, str) or not isinstance(keypoints, list):
            raise UserError(path, f"category {row.get('id')} has no name", "a name as text")
        categories[_key(row.get("id"))] = _Category(name.strip(), tuple(map(str, keypoints)))
    return categories


def _by_image(
    rows: list[Row],
    images: list[Row],
    categories: Mapping[object, _Category],
    path: Path,
    tally: Tally,
) -> dict[object, list[Row]]:
    found: dict[object, list[Row]] = {_key(image.get("id")): [] for image in images}
    if len(found) < len(images):
        raise UserError(path, "images share an id", "unique ids")
    for row in rows:
        of_image = found.get(_key(row.get("image_id")))
        if of_image is not None:
            of_image.append(row)
            continue
        category = categories.get(_key(row.get("category_id")))
        counts = tally.of(category.name if category else "", _kind(row))
        counts.read()
        counts.drop(UNKNOWN_IMAGE, f"{path}: annotation {row.get('id')}")
    return found


def _sample(
    image: Row,
    rows: list[Row],
    categories: Mapping[object, _Category],
    file: str,
    media: MediaSource,
    tally: Tally,
) -> Sample | None:
    place, name = f"{file}: image {image.get('id')}", image.get("file_name")
    size = stated_size(image.get("width"), image.get("height"))
    objects = open_objects(media, [name] if isinstance(name, str) else [], place, size, tally)
    place_prefix = f"{file}: annotation "
    for row in rows:
        _add(row, categories.get(_key(row.get("category_id"))), objects, place_prefix)
    return objects.sample(_exhaustive(image, objects, categories))


def _add(row: Row, category: _Category | None, objects: Objects, place_prefix: str) -> None:
    id = str(row.get("id", ""))
    place, kind = place_prefix + id, _kind(row)
    if category is None:
        objects.drop("", kind, place, UNKNOWN_CATEGORY)
    elif row.get("iscrowd") == 1:
        objects.skip(category.name, kind, place, GROUP)
    else:

        def make(size_wh: SizeWH) -> Shape:
            shape, is_replaced = _shape(row, category.keypoints, size_wh)
            if is_replaced:
                objects.corrected(category.name, kind, BOX_INSTEAD, place)
            return shape

        objects.add(category.name, kind, place, make, id)


def _exhaustive(
    image: Row, objects: Objects, categories: Mapping[object, _Category]
) -> tuple[str, ...]:
    absent, incomplete = image.get("neg_category_ids"), image.get("not_exhaustive_category_ids")
    if not isinstance(absent, list) or not isinstance(incomplete, list):
        return ()
    names = {
        number: {c.name for c in map(categories.get, map(_key, ids)) if c is not None}
        for number, ids in enumerate((absent, incomplete))
    }
    labels = dict.fromkeys([*objects.labels, *sorted(names[0])])
    return tuple(name for name in labels if name not in names[1])


def _kind(row: Row) -> str:
    if row.get("keypoints"):
        return "keypoints"
    segmentation = row.get("segmentation")
    return "mask" if isinstance(segmentation, dict) else "polygon" if segmentation else "box"


def _shape(row: Row, names: tuple[str, ...], size_wh: SizeWH) -> tuple[Shape, bool]:
    """Return the shape, and whether the box replaced an unusable segmentation."""
    extent, is_replaced = _extent(row, size_wh)
    keypoints = row.get("keypoints")
    if keypoints:
        points = _keypoints(keypoints, names)
        if points:
            return Keypoints(points, extent), is_replaced
    if extent is None:
        raise DroppedRowError(NO_SHAPE)
    return extent, is_replaced


def _extent(row: Row, size_wh: SizeWH) -> tuple[Box | Polygon | Mask | None, bool]:
    segmentation, has_box = row.get("segmentation"), bool(row.get("bbox"))
    if not segmentation:
        return (_box(row["bbox"]) if has_box else None), False
    try:
        if isinstance(segmentation, dict):
            return mask_of(segmentation, size_wh, BAD_RUNS), False
        if not isinstance(segmentation, list):
            raise DroppedRowError(NOT_A_NUMBER)
        return Polygon(tuple([corners_of(floats(part)) for part in segmentation])), False
    except DroppedRowError:
        if not has_box:
            raise
        return _box(row["bbox"]), True


def _box(values: object) -> Box:
    left, top, width, height = floats(values, 4)
    if width < 0 or height < 0:
        raise DroppedRowError(NEGATIVE)
    return Box((left, top, left + width, top + height))


def _keypoints(values: object, names: tuple[str, ...]) -> tuple[Keypoint, ...]:
    numbers = floats(values)
    triples = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False))
    if len(numbers) % 3 or (names and len(names) != len(triples)):
        raise DroppedRowError(BAD_KEYPOINTS)
    if not all(v in (0, 1, 2) for _, _, v in triples):
        raise DroppedRowError(BAD_KEYPOINTS)
    named = names or tuple(str(number + 1) for number in range(len(triples)))
    return tuple(
        Keypoint(name, (x, y), v == 2) for name, (x, y, v) in zip(named, triples, strict=True) if v
    )


def _key(value: object) -> object:
    """Return an id that is an integer or text; None for anything else."""
    return value if isinstance(value, _IDS) else None


READER = Reader(
    one_by_one(read_coco), looks_like_coco, "*.json", "COCO JSON (images and annotations)"
)
