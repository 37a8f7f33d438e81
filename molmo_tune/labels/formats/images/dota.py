"""DOTA: a text file per image with a rotated box per row, in pixels.

    imagesource:GoogleEarth                      two such lines may come first
    gsd:0.146
    x1 y1 x2 y2 x3 y3 x4 y4 class difficult      difficult: 0 or 1, may be missing

Corners count from 0 and go round clockwise; they are kept as polygons. This is not YOLO's rotated
box (`formats.images.yolo`), though exports of Roboflow put both into ``labelTxt``: there shares
of the image follow a class number. The image is the one of the same name; by default it lies where
``images`` stands for ``labelTxt`` in the path, else beside the text. Difficult objects are objects.

``exhaustive_labels``: none are set; DOTA's own set leaves out what its annotators could not tell.
"""

from __future__ import annotations

from pathlib import Path

from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.formats.images.yolo import image_folder
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import LostError, MakeShape, corners_of, open_objects, spelled
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Polygon, Sample, Shape

HEADERS = ("imagesource:", "gsd:")
TOO_SHORT = "fewer than eight numbers and a class"


def looks_like_dota(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    lines = [line for line in head.splitlines()[:6] if not line.startswith(HEADERS)]
    rows = [line.split() for line in lines if line.strip()]
    return bool(rows) and all(
        len(row) in (9, 10) and _are_numbers(row[:8]) and not _are_numbers(row[8:9]) for row in rows
    )


def _are_numbers(texts: list[str]) -> bool:
    try:
        spelled(texts)
    except LostError:
        return False
    return True


def read_dota(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The sample of a file, if it has objects.

    Raises:
        UserError: the file is no text.
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
                objects.drop("", "polygon", place, TOO_SHORT)
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
