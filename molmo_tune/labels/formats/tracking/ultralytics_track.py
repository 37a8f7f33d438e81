"""Tracks that Ultralytics writes with ``save_txt``: a file per frame, ``labels/clip_12.txt``.

    class x_center y_center width height confidence id

Boxes: center, width and height as fractions of the frame.
Frames: the number at the end of the name counts frames from 1.
Classes: named by ``data.yaml``, ``obj.names`` or ``classes.txt`` in the folder or up to three
    above.
Media: the name before the number is the video's.
Refused: rows of **six fields**. The sixth is a confidence (``save_conf=True``, not tracked) or an
    id (tracked, without confidences), and both can be whole numbers; track again with
    ``save_conf=True`` to get both.
Dropped: rows of five fields, which have no identity; the second row of an object in a frame (a
    second run appends to the files); files whose name has no frame number.
Noted: the boxes are a model's.
Exhaustive labels: none.
Source: ``Results.save_txt`` of Ultralytics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text_rows import NUMBER, looks_like_rows, text_rows, whole
from molmo_tune.labels.formats.images.yolo import find_classes
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

BY_MODEL = "written by a model, not by an annotator"
NO_IDENTITY = "five fields: a detection without identity"
NO_FRAME_IN_NAME = "the name does not end in _ and a frame number"
OTHER_FIELDS = "a row of other than 5 to 7 fields"


def looks_like_ultralytics_track(head: str) -> bool:
    """Return whether the first line is a class and five numbers, or six with a whole last one.

    A triangle of YOLO can look the same; then the user has to name the format.
    """
    return looks_like_rows(head, rf"\d+( {NUMBER}){{5}}( \d+)?")


def read_ultralytics_track(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video, from all files named like it.

    Raises:
        UserError: a row has six fields, there are no class names, or a file is not text.
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
    media.check_single_file(len(videos), files[0])
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
        found = "six fields: the last is a confidence or a track id"
        raise UserError(place, found, "seven fields", "track again with save_conf=True")
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
        raise DroppedRowError(NEGATIVE)
    xs = ((x - width / 2) * size_wh[0], (x + width / 2) * size_wh[0])
    ys = ((y - height / 2) * size_wh[1], (y + height / 2) * size_wh[1])
    return Box((xs[0], ys[0], xs[1], ys[1]))


READER = Reader(
    read_ultralytics_track,
    looks_like_ultralytics_track,
    "*.txt",
    "Ultralytics track txt (labels/clip_12.txt: class, box, confidence, id)",
)
