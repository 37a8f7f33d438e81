"""Single-object tracking sets: LaSOT, GOT-10k, TrackingNet, VOT and UAV123, a line per frame.

    367,101,41,16                           left, top, width, height of frame 0, and so on
    76,74,443,74,443,225,76,225             VOT: four corners

The box of a hidden or absent object is still written, so the flags beside ``groundtruth.txt``
decide. LaSOT: ``full_occlusion.txt`` (there, but hidden) and ``out_of_view.txt`` (not there), one
line of 0 and 1. GOT-10k: ``absence.label`` (1: not there) and ``cover.label`` (0: fully hidden, to
8), one per line. A line of NaN says not there. There must be a line and a flag for every frame of
the video. The class is ``object_class`` in GOT-10k's ``meta_info.ini``, or the name of a LaSOT
folder (``airplane-1``); otherwise all objects are called ``object``, which is noted. Only one
object was labeled, so nothing is exhaustive. The folder (or TrackingNet's file) names the video.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.files.text_rows import NUMBER, box_of, looks_like_rows
from molmo_tune.labels.formats.video_masks.sav import LABEL, NO_CLASSES
from molmo_tune.labels.image_objects import LostError, corners_of, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER
from molmo_tune.labels.video_objects import VideoObjects, open_video

BESIDE = ("full_occlusion.txt", "out_of_view.txt", "nlp.txt")
NOT_THERE = "flagged as absent or out of view"
NAN = "NaN: the object is not there"

_FIELD = rf"({NUMBER}|[Nn]a[Nn])"


@dataclass(frozen=True, slots=True)
class _Flags:
    """Per frame: not there, and there but hidden."""

    absent: list[bool]
    hidden: list[bool]


def looks_like_sot(head: str) -> bool:
    """Whether the first line is one of four or of eight numbers."""
    return looks_like_rows(head, rf"{_FIELD}([,\t ]+{_FIELD}){{3}}(([,\t ]+{_FIELD}){{4}})?")


def read_sot(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The sample of a sequence; the flag files of a folder have none.

    Raises:
        UserError: the file or a flag file is no text, or they differ in length.
    """
    if path.name in BESIDE:
        return []
    in_folder = path.stem == "groundtruth"
    name = path.parent.name if in_folder else path.stem
    lines = read_text(path).rstrip().splitlines()
    flags = _flags(path.parent, len(lines)) if in_folder else _Flags([], [])
    label = _label(path.parent) if in_folder else ""
    if not label:
        tally.note(NO_CLASSES, str(path))
    video = open_video(media, (name,), (), str(path), tally, None, len(lines))
    objects = VideoObjects(video, tally, str(path))
    for frame, line in enumerate(lines):
        fields = re.split(r"[,\t ]+", line.strip())
        _add(fields, frame, label or LABEL, flags, f"{path}:{frame + 1}", objects)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _add(
    fields: list[str], frame: int, label: str, flags: _Flags, place: str, objects: VideoObjects
) -> None:
    kind = "polygon" if len(fields) == 8 else "box"
    if flags.absent and flags.absent[frame]:
        objects.skip(label, kind, place, NOT_THERE, absent=True)
    elif all(field.lower() == "nan" for field in fields):
        objects.skip(label, kind, place, NAN, absent=True)
    else:
        hidden = bool(flags.hidden and flags.hidden[frame])
        objects.add(label, kind, "1", frame, place, lambda _: _shape(fields), occluded=hidden)


def _shape(fields: list[str]) -> Shape:
    if len(fields) == 8:
        return Polygon((corners_of(spelled(fields)),))
    if len(fields) != 4:
        raise LostError(NOT_A_NUMBER)
    return box_of(fields)


def _flags(folder: Path, count: int) -> _Flags:
    gone, absence = _numbers(folder / "out_of_view.txt"), _numbers(folder / "absence.label")
    hidden, cover = _numbers(folder / "full_occlusion.txt"), _numbers(folder / "cover.label")
    for found in (gone, absence, hidden, cover):
        if found and len(found) != count:
            what = f"{len(found)} flags beside a groundtruth.txt of {count} lines"
            raise UserError(folder, what, "one flag per frame", "get the files again")
    return _Flags(
        [value == 1 for value in (gone or absence)],
        [value == 1 for value in hidden] or [value == 0 for value in cover],
    )


def _numbers(path: Path) -> Sequence[int]:
    if not path.is_file():
        return []
    texts = re.split(r"[\s,]+", read_text(path).strip())
    if not all(re.fullmatch(r"[0-9]", text) for text in texts):
        raise UserError(path, "something other than single digits", "a flag per frame")
    return [int(text) for text in texts]


def _label(folder: Path) -> str:
    info = folder / "meta_info.ini"
    if info.is_file():
        found = re.search(r"(?m)^\s*object_class\s*[:=]\s*(.+?)\s*$", read_text(info))
        return found.group(1) if found else ""
    lasot = re.fullmatch(r"(.+)-\d+", folder.name)
    return lasot.group(1) if lasot else ""


READER = Reader(
    one_by_one(read_sot),
    looks_like_sot,
    "**/*.txt",
    "LaSOT, GOT-10k, TrackingNet or VOT (lines of 4 or 8 numbers)",
)
