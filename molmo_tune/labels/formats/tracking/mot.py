"""MOTChallenge ground truth, ``SEQUENCE/gt/gt.txt``: a box of one object in one frame per line.

    frame, id, left, top, width, height, flag, class, visibility

- Frames and pixels count from 1. Boxes may leave the frame and are cut at its edge.
- ``flag`` 0 means: ignore this row. Of the classes, 8 to 13 (distractor, occluders, reflection,
  crowd) are no objects to look for. Such rows are left out.
- ``visibility`` is the share that is not hidden; below a quarter the object counts as hidden.
- MOT15 has ten columns, of which the last three are world coordinates or -1: no class, no
  visibility, and every object is a pedestrian. Id -1 marks a detection without identity, which is
  dropped: as a track of its own it would be tracked and counted wrongly.
- ``gt/labels.txt``, which CVAT and datumaro write, names the classes in order, from 1.

A gap in an object's rows stays a gap. ``seqinfo.ini`` beside ``gt/`` names the sequence, its size
and its length; all must fit the video, its frame rate is not used. No label is exhaustive: static
people, people on vehicles and crowds are other classes or ignored.
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
FIRST_NO_OBJECT = 8
MIN_VISIBLE = 0.25
IGNORED = "flag 0: a row to ignore"
NO_OBJECT = "a distractor, occluder, reflection or crowd"
NO_IDENTITY = "id -1: a detection without identity"
TOO_SHORT = "a row of other than 7 to 10 fields"
UNKNOWN_CLASS = "a class without a name"


@dataclass(frozen=True, slots=True)
class _Sequence:
    names: tuple[str, ...]
    size_wh: tuple[int, int] | None = None
    num_frames: int | None = None


def looks_like_mot(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return looks_like_rows(head, rf"\d+\s*,\s*-?\d+\s*(,\s*{NUMBER}\s*){{5,8}}")


def read_mot(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The sample of a sequence.

    Args:
        path: the text file.
        media: the video, or the folder in which a video named like the sequence lies (``name`` in
            ``seqinfo.ini``, else the folder above ``gt/``, else the file's own name).
        tally: counts every row (kind ``box``).

    Raises:
        UserError: the file is no text, or ``seqinfo.ini`` is not readable.
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
        objects.drop("", "box", place, TOO_SHORT)
        return
    label, number = _label(fields, names)
    flags = numbers((fields[6], fields[8] if len(fields) > 8 else "1"))
    if flags is None:
        objects.drop(label, "box", place, NOT_A_NUMBER)
    elif flags[0] == 0:
        objects.skip(label, "box", place, IGNORED)
    elif names is CLASSES and number >= FIRST_NO_OBJECT:
        objects.skip(label, "box", place, NO_OBJECT)
    elif not label:
        objects.drop("", "box", place, UNKNOWN_CLASS)
    elif whole(fields[1]) in (None, -1):
        objects.drop(label, "box", place, NO_IDENTITY)
    else:
        frame = whole(fields[0])
        hidden = len(fields) < 10 and 0 <= flags[1] < MIN_VISIBLE
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
    beside = path.with_name("labels.txt")
    if not beside.is_file() or beside == path:
        return CLASSES
    return [line.strip() for line in read_text(beside).splitlines()]


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
        found = f"not readable ({str(error).splitlines()[0]})"
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
