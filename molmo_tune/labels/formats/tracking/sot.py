"""Single-object tracking datasets (LaSOT, GOT-10k, TrackingNet, VOT, UAV123): a row per frame.

    367,101,41,16                           left, top, width, height of frame 0, and so on
    76,74,443,74,443,225,76,225             VOT: four corners

Boxes: pixels from 0.
Frames: the first row is frame 0; there must be one row, and one flag, per frame of the video.
Hidden and absent: files have boxes of hidden and absent objects, too, so flag files next to
    ``groundtruth.txt`` decide. LaSOT: ``full_occlusion.txt`` (1: hidden) and ``out_of_view.txt``
    (1: absent), in one line. GOT-10k: ``absence.label`` (1: absent) and ``cover.label`` (0: fully
    hidden, to 8), one per line. A row of NaN means absent.
Classes: ``object_class`` in GOT-10k's ``meta_info.ini``, or the name of a LaSOT folder
    (``airplane-1``); otherwise ``object``, with a note.
Media: the video is named like the folder of ``groundtruth.txt``, or like TrackingNet's file.
Refused: flag files that differ in length from ``groundtruth.txt``.
Skipped: rows of absent objects.
Exhaustive labels: none; only one object is labeled.
Source: the readmes of LaSOT and GOT-10k.
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
from molmo_tune.labels.image_objects import DroppedRowError, corners_of, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER
from molmo_tune.labels.video_objects import VideoObjects, open_video

OTHER_FILES = ("full_occlusion.txt", "out_of_view.txt", "nlp.txt")
ABSENT = "flagged as absent or out of view"
NAN = "NaN: object absent"

_FIELD = rf"({NUMBER}|[Nn]a[Nn])"


@dataclass(frozen=True, slots=True)
class _Flags:
    """Flags per frame: absent, and present but hidden."""

    absent: list[bool]
    hidden: list[bool]


def looks_like_sot(head: str) -> bool:
    """Return whether the first line has four or eight numbers."""
    return looks_like_rows(head, rf"{_FIELD}([,\t ]+{_FIELD}){{3}}(([,\t ]+{_FIELD}){{4}})?")


def read_sot(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a sequence, as a list of at most one; flag files have none.

    Raises:
        UserError: the file or a flag file is not text, or they differ in length.
    """
    if path.name in OTHER_FILES:
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
        objects.skip(label, kind, place, ABSENT, absent=True)
    elif all(field.lower() == "nan" for field in fields):
        objects.skip(label, kind, place, NAN, absent=True)
    else:
        hidden = bool(flags.hidden and flags.hidden[frame])
        objects.add(label, kind, "1", frame, place, lambda _: _shape(fields), occluded=hidden)


def _shape(fields: list[str]) -> Shape:
    if len(fields) == 8:
        return Polygon((corners_of(spelled(fields)),))
    if len(fields) != 4:
        raise DroppedRowError(NOT_A_NUMBER)
    return box_of(fields)


def _flags(folder: Path, count: int) -> _Flags:
    out_of_view, absence = _numbers(folder / "out_of_view.txt"), _numbers(folder / "absence.label")
    hidden, cover = _numbers(folder / "full_occlusion.txt"), _numbers(folder / "cover.label")
    for found in (out_of_view, absence, hidden, cover):
        if found and len(found) != count:
            what = f"{len(found)} flags for {count} lines of groundtruth.txt"
            raise UserError(folder, what, "one flag per line", "download the files again")
    return _Flags(
        [value == 1 for value in (out_of_view or absence)],
        [value == 1 for value in hidden] or [value == 0 for value in cover],
    )


def _numbers(path: Path) -> Sequence[int]:
    if not path.is_file():
        return []
    texts = re.split(r"[\s,]+", read_text(path).strip())
    if not all(re.fullmatch(r"[0-9]", text) for text in texts):
        raise UserError(path, "something other than single digits", "one flag per frame")
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
