"""CreateML JSON: images with boxes.

    [{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates":
        {"x": 4, "y": 5, "width": 4, "height": 5}}]}]

Boxes: pixels; ``x, y`` is the center of the box, not its corner.
Media: images are named like ``image`` (or ``imagefilename``).
Exhaustive labels: none.
Source: Apple's documentation of Create ML, "Building an object detector data source".
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.formats.images._centered_boxes import (
    Row,
    box_of_center,
    list_of_rows,
    text_of,
)
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import open_objects
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample


def looks_like_createml(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return head.lstrip().startswith("[") and bool(re.search(r'"coordinates"\s*:\s*\{', head))


def read_createml(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per image with boxes.

    Raises:
        UserError: the file is not JSON of this format, or a name points outside the media folder.
    """
    images = list_of_rows(read_json(path), path)
    media.check_single_file(len(images), path)
    samples = []
    for number, image in enumerate(images, 1):
        name = image.get("image") or image.get("imagefilename")
        names = [name] if isinstance(name, str) else []
        objects = open_objects(media, names, f"{path}: image {number}", None, tally)
        rows = list_of_rows(image.get("annotations") or image.get("annotation") or [], path)
        for index, row in enumerate(rows, 1):
            box = row.get("coordinates")
            box = box if isinstance(box, dict) else {}
            place = f"{path}: image {number}, annotation {index}"
            objects.add(text_of(row.get("label")), "box", place, partial(_shape, box))
        samples.append(objects.sample())
    return [sample for sample in samples if sample is not None]


def _shape(box: Row, _: SizeWH) -> Box:
    return box_of_center(box)


READER = Reader(
    one_by_one(read_createml), looks_like_createml, "*.json", "CreateML (JSON with coordinates)"
)
