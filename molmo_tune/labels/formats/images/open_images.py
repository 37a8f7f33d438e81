"""Open Images: CSV files of boxes, class names and image labels.

    ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,…,IsGroupOf,IsDepiction,IsInside
    b,xclick,/m/0,1,0.2,1,0.3,0.5,-1,-1,-1,-1,-1

Boxes: fractions of the image, *in this order*: both x before both y. Flags are 1, 0 or -1 for
    unknown; depictions are read.
Classes: named by ``*class-descriptions*.csv`` in the same folder.
Media: images are named like their ids.
Skipped: groups (``IsGroupOf``), and objects that the photo was taken inside of (``IsInside``).
Dropped: class ids without a name.
Exhaustive labels: with ``*imagelabels*.csv`` in the same folder, the labels that a person verified
    as absent (confidence 0). Present labels are never exhaustive: classes form a hierarchy, and
    only the most specific ones were drawn.
Source: "Data formats" on the download page of Open Images.
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

INSIDE = "the photo was taken inside of it"
NO_NAME = "a class id without a name in class-descriptions"
_SIDES = ("XMin", "YMin", "XMax", "YMax")


def looks_like_open_images(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    columns = [name.strip() for name in head.split("\n", 1)[0].split(",")]
    return {"ImageID", "LabelName", *_SIDES} <= set(columns)


def read_open_images(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per image with boxes or verified absences, in the order of the boxes.

    Raises:
        UserError: the file, or one of the other CSV files, is not CSV of this format.
    """
    names = _class_names(path.parent)
    images: dict[str, Objects] = {}
    for place, row in csv_rows(path, ("ImageID", "LabelName", *_SIDES)):
        image = row["ImageID"] or ""
        if image not in images:
            files = [image + suffix for suffix in IMAGE_SUFFIXES] if image else []
            images[image] = open_objects(media, files, f"{path}: image {image}", None, tally)
        _add(row, names, images[image], place)
    media.check_single_file(len(images), path)
    absent = _absent(path.parent, names)
    samples = [objects.sample(absent.get(image, ())) for image, objects in images.items()]
    return [sample for sample in samples if sample is not None]


def _class_names(folder: Path) -> dict[str, str]:
    """Return class names by id; the files have no header, or one that starts with LabelName."""
    names: dict[str, str] = {}
    for path in sorted(folder.glob("*class-descriptions*.csv")):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in csv.reader(file):
                    if len(row) >= 2 and row[0] != "LabelName":
                        names[row[0].strip()] = row[1].strip()
        except (csv.Error, UnicodeError) as error:
            raise UserError(path, f"not valid CSV in UTF-8 ({error})") from error
    return names


def _absent(folder: Path, names: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the labels that a person verified as absent, by image."""
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
