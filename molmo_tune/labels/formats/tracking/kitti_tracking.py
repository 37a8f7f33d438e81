"""KITTI tracking labels, ``label_02/0000.txt``: one object in one frame per row.

    frame track_id type truncated occluded alpha left top right bottom height width length x y z
    rotation_y [score]

Boxes: corners in pixels from 0. The 3-D fields are not read.
Frames: count from 0.
Hidden: objects with ``occluded`` 2 (largely) or 3 (unknown); 0 is visible, 1 partly occluded.
Media: the file is named like its sequence and video.
Skipped: ``DontCare`` (track id -1), a region in which nothing was labeled.
Dropped: other track ids below 0, rows of other than 17 or 18 fields.
Exhaustive labels: none; KITTI promises none, and ``DontCare`` regions can contain objects.
Source: the readme of KITTI's tracking development kit.
"""

from __future__ import annotations

from pathlib import Path

from molmo_tune.labels.files.text_rows import NUMBER, looks_like_rows, text_rows, whole
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

DONT_CARE = "DontCare: a region in which nothing was labeled"
NO_IDENTITY = "a track id below 0"
OTHER_FIELDS = "a row of other than 17 or 18 fields"


def looks_like_kitti_tracking(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return looks_like_rows(head, rf"\d+ +-?\d+ +[A-Za-z_]+( +{NUMBER}){{14,15}}")


def read_kitti_tracking(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a sequence, as a list of at most one.

    Raises:
        UserError: the file is not text.
    """
    video = open_video(media, (path.stem,), (), str(path), tally)
    objects = VideoObjects(video, tally, str(path))
    for row in text_rows(path):
        _add(row.fields, row.place, objects)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _add(fields: list[str], place: str, objects: VideoObjects) -> None:
    if len(fields) not in (17, 18):
        objects.drop("", "box", place, OTHER_FIELDS)
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
        raise DroppedRowError(NEGATIVE)
    return Box((left, top, right, bottom))


READER = Reader(
    one_by_one(read_kitti_tracking),
    looks_like_kitti_tracking,
    "*.txt",
    "KITTI tracking labels (17 fields: frame, track id, type, …)",
)
