"""MOTChallenge ground truth, ``SEQUENCE/gt/gt.txt``: one object in one frame per row.

    frame, id, left, top, width, height, flag, class, visibility

Boxes: pixels from 1. Boxes that leave the frame are clipped.
Frames: count from 1. Gaps in an object's rows stay gaps.
Hidden: objects with ``visibility``, the visible fraction, below 0.25.
Classes: the 13 of MOT16, or one per line of ``gt/labels.txt`` (from CVAT and datumaro). MOT15 has
    ten columns: the last three are world coordinates or -1, and every object is a pedestrian.
Media: the video is named like the sequence: ``name`` in ``seqinfo.ini`` next to ``gt/``, else the
    folder above ``gt/``, else the file's own name. Size and length in ``seqinfo.ini`` must
    match the video; its frame rate is not used.
Skipped: rows with ``flag`` 0, and MOT16 classes 8 to 13 (distractor, occluders, reflection, crowd).
Dropped: id -1, a detection without identity (as a track of its own it would be counted wrongly);
    classes without a name; rows of other than 7 to 10 fields.
Exhaustive labels: none; static people, people on vehicles and crowds are other classes or ignored.
Source: the MOT16 paper, arXiv 1603.00831, and the instructions of motchallenge.net.
"""

from __future__ import annotations

import configparser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.files.text_rows import NUMBER, box_of, looks_like_rows, text_rows, whole
from molmo_tune.labels.image_objects import stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.tracks import NOT_A_NUMBER, numbers
from molmo_tune.labels.video_objects import VideoObjects, open_video

CLASSES = (
    *("pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle"),
    *("static person", "distractor", "occluder", "occluder on the ground", "occluder full"),
    *("reflection", "crowd"),
)
FIRST_IGNORED_CLASS = 8
MIN_VISIBILITY = 0.25
IGNORED = "flag 0: a row to ignore"
IGNORED_CLASS = "a distractor, occluder, reflection or crowd"
NO_IDENTITY = "id -1: a detection without identity"
OTHER_FIELDS = "a row of other than 7 to 10 fields"
UNKNOWN_CLASS = "a class without a name"


@dataclass(frozen=True, slots=True)
class _Sequence:
    names: tuple[str, ...]
    size_wh: tuple[int, int] | None = None
    num_frames: int | None = None


def looks_like_mot(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return looks_like_rows(head, rf"\d+\s*,\s*-?\d+\s*(,\s*{NUMBER}\s*){{5,8}}")


def read_mot(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a sequence, as a list of at most one.

    Args:
        path: the text file.
        media: the video, or the folder of the videos.
        tally: counts every row (kind ``box``).

    Raises:
        UserError: the file is not text, or ``seqinfo.ini`` is not valid.
    """
    sequence = _sequence(path)
    size, length = sequence.size_wh, sequence.num_frames
    video = open_video(media, sequence.names, (), str(path), tally, size, length)
    objects = VideoObjects(video, tally, str(path))
    names = _class_names(path)
    for row in text_rows(path, ","):
        _add(row.fields, row.place, names, objects)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _add(fields: list[str], place: str, names: Sequence[str], objects: VideoObjects) -> None:
    if not 7 <= len(fields) <= 10:
        objects.drop("", "box", place, OTHER_FIELDS)
        return
    label, number = _label(fields, names)
    flags = numbers((fields[6], fields[8] if len(fields) > 8 else "1"))
    if flags is None:
        objects.drop(label, "box", place, NOT_A_NUMBER)
    elif flags[0] == 0:
        objects.skip(label, "box", place, IGNORED)
    elif names is CLASSES and number >= FIRST_IGNORED_CLASS:
        objects.skip(label, "box", place, IGNORED_CLASS)
    elif not label:
        objects.drop("", "box", place, UNKNOWN_CLASS)
    elif whole(fields[1]) in (None, -1):
        objects.drop(label, "box", place, NO_IDENTITY)
    else:
        frame = whole(fields[0])
        hidden = len(fields) < 10 and 0 <= flags[1] < MIN_VISIBILITY
        objects.add(
            label,
            "box",
            fields[1].strip(),
            None if frame is None else frame - 1,
            place,
            lambda _: box_of(fields[2:6], origin=1),
            occluded=hidden,
        )


def _label(fields: list[str], names: Sequence[str]) -> tuple[str, int]:
    if len(fields) == 7 or len(fields) == 10:
        return CLASSES[0], 1
    number = whole(fields[7]) or 0
    return (names[number - 1] if 1 <= number <= len(names) else ""), number


def _class_names(path: Path) -> Sequence[str]:
    names = path.with_name("labels.txt")
    if not names.is_file() or names == path:
        return CLASSES
    return [line.strip() for line in read_text(names).splitlines()]


def _sequence(path: Path) -> _Sequence:
    folder = path.parent.parent if path.parent.name == "gt" else path.parent
    name = path.stem if path.stem != "gt" else folder.name
    names = (name,) if name else ()
    ini = folder / "seqinfo.ini"
    if not ini.is_file():
        return _Sequence(names)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(ini))
        section = parser["Sequence"]
    except (configparser.Error, KeyError) as error:
        found = f"not valid ({str(error).splitlines()[0]})"
        raise UserError(ini, found, "a [Sequence] section with name, imWidth, …") from error
    named = tuple(dict.fromkeys(filter(None, (section.get("name", "").strip(), *names))))
    size = stated_size(whole(section.get("imWidth")), whole(section.get("imHeight")))
    return _Sequence(named, size, whole(section.get("seqLength")))


READER = Reader(
    one_by_one(read_mot),
    looks_like_mot,
    "**/gt.txt",
    "MOTChallenge ground truth (frame,id,left,top,width,height,…)",
)
