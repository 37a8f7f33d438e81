"""Open Images: a CSV of boxes, class names in another, and image labels in a third.

    ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,…,IsGroupOf,IsDepiction,IsInside
    b,xclick,/m/0,1,0.2,1,0.3,0.5,-1,-1,-1,-1,-1

Boxes are shares of the image, and *in that order*: both x before both y. Flags are 1, 0 or -1 for
unknown. A group is left out, and so is what the picture was taken inside of; a depiction is kept.
Class names come from a ``*class-descriptions*.csv`` in the same folder; an id without a name there
is a loss. The image is the one named like its id.

``exhaustive_labels``: of a ``*imagelabels*.csv`` in the same folder the labels that a person found
to be absent (confidence 0). Labels that are present are not set: the classes are a hierarchy, and
only the most specific ones were drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.table_rows import Row, csv_rows
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import GROUP, MakeShape, Objects, open_objects, spelled
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample, Shape

INSIDE = "the picture was taken inside of it"
NO_NAME = "a class id without a name in class-descriptions"
_SIDES = ("XMin", "YMin", "XMax", "YMax")


def looks_like_open_images(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    columns = [name.strip() for name in head.split("\n", 1)[0].split(",")]
    return {"ImageID", "LabelName", *_SIDES} <= set(columns)


def read_open_images(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per image with boxes or known absences, in the order of the boxes.

    Raises:
        UserError: the file or one beside it is not such CSV.
    """
    names = _class_names(path.parent)
    images: dict[str, Objects] = {}
    for place, row in csv_rows(path, ("ImageID", "LabelName", *_SIDES)):
        image = row["ImageID"] or ""
        if image not in images:
            files = [image + suffix for suffix in IMAGE_SUFFIXES] if image else []
            images[image] = open_objects(media, files, f"{path}: image {image}", None, tally)
        _add(row, names, images[image], place)
    media.check_number(len(images), path)
    absent = _absent(path.parent, names)
    samples = [objects.sample(absent.get(image, ())) for image, objects in images.items()]
    return [sample for sample in samples if sample is not None]


def _class_names(folder: Path) -> dict[str, str]:
    """Names by id; the files have no header, or one that begins with LabelName."""
    names: dict[str, str] = {}
    for path in sorted(folder.glob("*class-descriptions*.csv")):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in csv.reader(file):
                    if len(row) >= 2 and row[0] != "LabelName":
                        names[row[0].strip()] = row[1].strip()
        except (csv.Error, UnicodeError) as error:
            raise UserError(path, f"not UTF-8 text in CSV ({error})") from error
    return names


def _absent(folder: Path, names: Mapping[str, str]) -> dict[str, list[str]]:
    """Labels that a person found to be absent, by image."""
    absent: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*imagelabels*.csv")):
        for _, row in csv_rows(path, ("ImageID", "LabelName", "Confidence")):
            name = names.get(row["LabelName"] or "")
            if row["Confidence"] in ("0", "0.0") and name:
                absent.setdefault(row["ImageID"] or "", []).append(name)
    return absent


def _add(row: Row, names: Mapping[str, str], objects: Objects, place: str) -> None:
    id = (row["LabelName"] or "").strip()
    label = names.get(id, "" if id.startswith("/") else id)
    if row.get("IsGroupOf") == "1":
        objects.skip(label, "box", place, GROUP)
    elif row.get("IsInside") == "1":
        objects.skip(label, "box", place, INSIDE)
    elif id and not label:
        objects.drop(id, "box", place, NO_NAME)
    else:
        objects.add(label, "box", place, _maker(row))


def _maker(row: Row) -> MakeShape:
    def make(size_wh: SizeWH) -> Shape:
        left, top, right, bottom = spelled(row[side] or "none" for side in _SIDES)
        width, height = size_wh
        return Box((left * width, top * height, right * width, bottom * height))

    return make


READER = Reader(
    one_by_one(read_open_images),
    looks_like_open_images,
    "*bbox*.csv",
    "Open Images (CSV with ImageID, LabelName, XMin, XMax, …)",
)
