"""KITTI tracking labels, ``label_02/0000.txt``: one object in one frame per line, 17 or 18 fields.

    frame track_id type truncated occluded alpha left top right bottom height width length x y z
    rotation_y [score]

Frames and pixels count from 0; the box is given by its corners. ``type`` ``DontCare`` (track id -1)
marks a region in which nothing was labeled and is left out. ``occluded`` 0 is visible, 1 partly,
2 largely and 3 unknown: the last two are kept as hidden. Where there are ``DontCare`` regions no
label is exhaustive, and KITTI promises none. The 3-D fields are not kept. The name of the file is
that of the sequence and of its video.
"""

from __future__ import annotations

from pathlib import Path

from molmo_tune.labels.files.text_rows import NUMBER, looks_like_rows, text_rows, whole
from molmo_tune.labels.image_objects import NEGATIVE, LostError, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

DONT_CARE = "DontCare: a region in which nothing was labeled"
NO_IDENTITY = "a track id below 0"
OTHER_LENGTH = "a row of other than 17 or 18 fields"


def looks_like_kitti_tracking(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return looks_like_rows(head, rf"\d+ +-?\d+ +[A-Za-z_]+( +{NUMBER}){{14,15}}")


def read_kitti_tracking(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The sample of a sequence.

    Raises:
        UserError: the file is no text.
    """
    video = open_video(media, (path.stem,), (), str(path), tally)
    objects = VideoObjects(video, tally, str(path))
    for row in text_rows(path):
        _add(row.fields, row.place, objects)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _add(fields: list[str], place: str, objects: VideoObjects) -> None:
    if len(fields) not in (17, 18):
        objects.drop("", "box", place, OTHER_LENGTH)
        return
    label, id = fields[2], whole(fields[1])
    if label == "DontCare":
        objects.skip(label, "box", place, DONT_CARE)
    elif id is None or id < 0:
        objects.drop(label, "box", place, NO_IDENTITY)
    else:
        hidden = fields[4] in ("2", "3")
        frame = whole(fields[0])
        objects.add(label, "box", str(id), frame, place, lambda _: _box(fields), occluded=hidden)


def _box(fields: list[str]) -> Box:
    left, top, right, bottom = spelled(fields[6:10])
    if right < left or bottom < top:
        raise LostError(NEGATIVE)
    return Box((left, top, right, bottom))


READER = Reader(
    one_by_one(read_kitti_tracking),
    looks_like_kitti_tracking,
    "*.txt",
    "KITTI tracking labels (17 fields: frame, track id, type, …)",
)
