"""Tracks as Ultralytics writes them with ``save_txt``: a file per frame, ``labels/clip_12.txt``.

    class x_center y_center width height confidence id

Coordinates are shares of the frame; the number in the name counts frames from 1. **Six fields are
ambiguous**: the sixth is a confidence (``save_conf=True``, no track) or an id (tracked, without
confidences), and both can be whole numbers. Such files are refused; tracking once more with
``save_conf=True`` writes both. A second run appends to the files: the second row of an object in a
frame is a loss. Class names are looked for as for YOLO. These are a model's boxes: noted, and
nothing is exhaustive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text_rows import NUMBER, looks_like_rows, text_rows, whole
from molmo_tune.labels.formats.images.yolo import find_classes
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import NEGATIVE, LostError, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

BY_MODEL = "written by a model, not by an annotator"
NO_IDENTITY = "five fields: a detection without identity"
NO_FRAME_IN_NAME = "its name does not end in _ and the number of a frame"
OTHER_FIELDS = "a row of other than 5 to 7 fields"


def looks_like_ultralytics_track(head: str) -> bool:
    """Whether the first line is a class and five numbers, or six of which the last is whole.

    A triangle of YOLO can look like that as well, and then the user has to say.
    """
    return looks_like_rows(head, rf"\d+( {NUMBER}){{5}}( \d+)?")


def read_ultralytics_track(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per video, of all files that are called like it.

    Raises:
        UserError: rows of six fields, no class names, or a file that is no text.
    """
    names = find_classes(files[0].parent).names
    videos: dict[str, list[tuple[int, Path]]] = {}
    for file in files:
        found = re.fullmatch(r"(.+)_(\d{1,9})", file.stem)
        if found:
            videos.setdefault(found.group(1), []).append((int(found.group(2)), file))
        elif file.name != "classes.txt":
            counts = tally.of("", "file")
            counts.read()
            counts.drop(NO_FRAME_IN_NAME, str(file))
    media.check_number(len(videos), files[0])
    samples = (_sample(name, group, names, media, tally) for name, group in videos.items())
    return [sample for sample in samples if sample is not None]


def _sample(
    name: str,
    files: Sequence[tuple[int, Path]],
    names: Mapping[int, str],
    media: MediaSource,
    tally: Tally,
) -> Sample | None:
    place = str(files[0][1])
    tally.note(BY_MODEL, place)
    objects = VideoObjects(open_video(media, (name,), (), place, tally), tally, place)
    for number, file in sorted(files):
        for row in text_rows(file):
            _add(row.fields, number - 1, row.place, names, objects)
    return objects.sample()


def _add(
    fields: list[str], frame: int, place: str, names: Mapping[int, str], objects: VideoObjects
) -> None:
    if len(fields) == 6:
        found = "six fields: the last may be a confidence or a track id"
        raise UserError(place, found, "seven", "track again with save_conf=True")
    number = whole(fields[0])
    label = names.get(number, "") if number is not None else ""
    id = whole(fields[-1])
    if len(fields) != 7 or id is None:
        reason = NO_IDENTITY if len(fields) == 5 else OTHER_FIELDS
        objects.drop(label, "box", place, reason)
    else:
        objects.add(label, "box", str(id), frame, place, lambda size: _box(fields[1:5], size))


def _box(fields: list[str], size_wh: SizeWH) -> Box:
    x, y, width, height = spelled(fields)
    if width < 0 or height < 0:
        raise LostError(NEGATIVE)
    xs = ((x - width / 2) * size_wh[0], (x + width / 2) * size_wh[0])
    ys = ((y - height / 2) * size_wh[1], (y + height / 2) * size_wh[1])
    return Box((xs[0], ys[0], xs[1], ys[1]))


READER = Reader(
    read_ultralytics_track,
    looks_like_ultralytics_track,
    "*.txt",
    "Ultralytics track txt (labels/clip_12.txt: class, box, confidence, id)",
)
