"""KITTI detection labels, ``label_2/000000.txt``: a box per line, 15 fields, 16 with a score.

    type truncated occluded alpha left top right bottom height width length x y z rotation_y [score]

Boxes are corners in pixels from 0. ``type`` ``DontCare`` marks a region where nothing was labeled
and is skipped. ``truncated`` (0 to 1), ``occluded`` (0 to 3), the 3-D fields and the score of a
result file are not kept; notes count what they concern. The image has the same name; by default it
is in ``image_2`` next to ``label_2``, else next to the text. NVIDIA's tools write this format as
well.

``exhaustive_labels``: none are set; KITTI leaves out what is far away or not labeled.
"""

from __future__ import annotations

from pathlib import Path

from molmo_tune.labels.files.text_rows import NUMBER, looks_like_rows, text_rows
from molmo_tune.labels.formats.tracking.kitti_tracking import DONT_CARE
from molmo_tune.labels.formats.tracking.ultralytics_track import BY_MODEL
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import (
    NEGATIVE,
    DroppedRowError,
    MakeShape,
    open_objects,
    spelled,
)
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample, Shape

OTHER_LENGTH = "a row of other than 15 or 16 fields"
NOT_KEPT = "truncation and occlusion are not kept"


def looks_like_kitti_detection(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return looks_like_rows(head, rf"[A-Za-z][\w.-]*( +{NUMBER}){{14,15}}")


def read_kitti_detection(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, if it has objects.

    Raises:
        UserError: the file is not text.
    """
    media = media if media.given else MediaSource(_image_folder(path.parent), given=False)
    names = [path.stem + suffix for suffix in IMAGE_SUFFIXES]
    objects = open_objects(media, names, str(path), None, tally)
    for row in text_rows(path):
        label = row.fields[0]
        if len(row.fields) not in (15, 16):
            objects.drop("", "box", row.place, OTHER_LENGTH)
        elif label == "DontCare":
            objects.skip(label, "box", row.place, DONT_CARE)
        else:
            kept = objects.add(label, "box", row.place, _maker(row.fields[4:8]))
            if kept and any(text.strip("0.") for text in row.fields[1:3]):
                tally.note(NOT_KEPT, row.place)
            if kept and len(row.fields) == 16:
                tally.note(BY_MODEL, row.place)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _image_folder(folder: Path) -> Path:
    images = folder.parent / "image_2"
    return images if folder.name == "label_2" and images.is_dir() else folder


def _maker(texts: list[str]) -> MakeShape:
    def make(_: SizeWH) -> Shape:
        left, top, right, bottom = spelled(texts)
        if right < left or bottom < top:
            raise DroppedRowError(NEGATIVE)
        return Box((left, top, right, bottom))

    return make


READER = Reader(
    one_by_one(read_kitti_detection),
    looks_like_kitti_detection,
    "*.txt",
    "KITTI detection labels (15 fields: type, truncated, occluded, …)",
)
