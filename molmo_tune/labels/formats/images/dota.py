"""DOTA: a text file per image with rotated boxes.

    imagesource:GoogleEarth                      two such lines can come first
    gsd:0.146
    x1 y1 x2 y2 x3 y3 x4 y4 class difficult      difficult: 0 or 1, optional

Boxes: four corners in pixels from 0, clockwise, read as polygons. Difficult objects are read, too.
    Rotated boxes of YOLO are another format (`yolo`), although Roboflow exports both to
    ``labelTxt``: there, fractions of the image follow a class number.
Media: images are named like the text files. By default they are in the folder with ``images`` in
    place of ``labelTxt`` in its path, else next to the texts.
Dropped: rows with fewer than eight numbers and a class.
Exhaustive labels: none; DOTA omits objects that its annotators could not identify.
Source: the DOTA website of captain-whu.
"""

from __future__ import annotations

from pathlib import Path

from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.formats.images.yolo import image_folder
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import (
    DroppedRowError,
    MakeShape,
    corners_of,
    open_objects,
    spelled,
)
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Polygon, Sample, Shape

HEADERS = ("imagesource:", "gsd:")
TOO_FEW_FIELDS = "fewer than eight numbers and a class"


def looks_like_dota(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    lines = [line for line in head.splitlines()[:6] if not line.startswith(HEADERS)]
    rows = [line.split() for line in lines if line.strip()]
    return bool(rows) and all(
        len(row) in (9, 10) and _are_numbers(row[:8]) and not _are_numbers(row[8:9]) for row in rows
    )


def _are_numbers(texts: list[str]) -> bool:
    try:
        spelled(texts)
    except DroppedRowError:
        return False
    return True


def read_dota(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, as a list of at most one.

    Raises:
        UserError: the file is not text.
    """
    media = media if media.given else MediaSource(image_folder(path.parent), given=False)
    names = [path.stem + suffix for suffix in IMAGE_SUFFIXES]
    objects = open_objects(media, names, str(path), None, tally)
    text = read_text(path) if path.stat().st_size else ""
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if fields and not line.startswith(HEADERS):
            place = f"{path}:{number}"
            if len(fields) < 9:
                objects.drop("", "polygon", place, TOO_FEW_FIELDS)
            else:
                objects.add(fields[8], "polygon", place, _maker(fields[:8]))
    sample = objects.sample()
    return [sample] if sample is not None else []


def _maker(texts: list[str]) -> MakeShape:
    def make(_: SizeWH) -> Shape:
        return Polygon((corners_of(spelled(texts)),))

    return make


READER = Reader(
    one_by_one(read_dota), looks_like_dota, "*.txt", "DOTA (txt: eight pixels and a class)"
)
