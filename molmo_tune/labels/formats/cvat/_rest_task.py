"""What a CVAT server says about a task, beside its annotations: names of labels, frames, media.

The annotations of the REST API hold numbers only. What they stand for is in two more answers, which
are saved beside the file:

    labels.json   GET /api/labels?task_id=ID       {"results": [{"id": 3, "name": "car",
                                                     "sublabels": [{"id": 19, "name": "nose"}]}]}
    meta.json     GET /api/tasks/ID/data/meta      {"frames": [{"name": "clip.mp4", "width": …}],
                                                     "size": 30, "start_frame": 10,
                                                     "frame_filter": "step=3", "deleted_frames": []}
    job.json      GET /api/jobs/ID                 for a job: where it ends, {"stop_frame": 19}

Several tasks in one folder are told apart by the name: ``12_annotations.json``, ``12_labels.json``,
``12_meta.json``. A frame of the annotations is a number within the task, also in those of a job:
``start_frame + frame * step`` is the frame of the video. A list with a name for each frame is that
of pictures, else the task is about one video. Nothing is guessed where an answer is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.formats.cvat._rest_nodes import Entry, kind_of
from molmo_tune.labels.media_source import VIDEO_SUFFIXES
from molmo_tune.labels.report import Tally

DELETED = "its frame was deleted from the task"


@dataclass(frozen=True, slots=True)
class CvatFrames:
    """The frames of a task.

    Args:
        names: of the pictures; of a video its one name.
        sizes: as stated, for each name.
        is_video: the frames are those of one video.
        start: frame of the video that is the task's first.
        step: frames of the video from one of the task to the next.
        last: the last frame, in the task's numbers.
        deleted: frames that were deleted from the task.
    """

    names: tuple[str, ...]
    sizes: tuple[tuple[object, object], ...]
    is_video: bool
    start: int
    step: int
    last: int
    deleted: frozenset[int]

    def in_video(self, frame: object) -> int | None:
        """The frame of the video; None when it is no frame."""
        known = type(frame) is int and abs(frame) < 2**31
        return self.start + int(str(frame)) * self.step if known else None


@dataclass(frozen=True, slots=True)
class CvatAnswer:
    """An answer with what belongs to it."""

    path: Path
    frames: CvatFrames
    names: Mapping[int, str]
    lists: Mapping[str, list[Entry]]

    def label(self, entry: Entry) -> str:
        """Its class; backups of CVAT write the name itself."""
        id, name = entry.get("label_id"), entry.get("label")
        return self.names.get(id, "") if type(id) is int else str(name or "").strip()

    def place(self, what: str, entry: Entry) -> str:
        """Where an entry stands."""
        return f"{self.path}: {what} {entry.get('id', '')}, frame {entry.get('frame')}"


def beside(path: Path, what: str) -> Path | None:
    """The answer that belongs to a file of annotations."""
    named = path.with_name(path.name.replace("annotations", what))
    plain = path.with_name(f"{what}.json")
    return next((file for file in (named, plain) if file != path and file.is_file()), None)


def read_label_names(path: Path) -> dict[int, str]:
    """Names by id, those of sublabels as well.

    Raises:
        UserError: there is no such answer, or it is something else.
    """
    file = beside(path, "labels")
    if file is None:
        fix = f"save GET /api/labels?task_id=… as {path.with_name('labels.json')}"
        raise UserError(path, "the labels are numbers, and their names are not beside it", fix=fix)
    data = read_json(file)
    for key in ("results", "labels"):
        data = data.get(key, data) if isinstance(data, dict) else data
    if not isinstance(data, list):
        raise UserError(file, "no list of labels", "the answer of CVAT's /api/labels")
    return dict(_names_in(data, file))


def _names_in(labels: list[Any], file: Path) -> Iterator[tuple[int, str]]:
    for label in labels:
        if not isinstance(label, dict) or type(label.get("id")) is not int:
            raise UserError(file, "a label without an id", "the answer of CVAT's /api/labels")
        if not isinstance(label.get("name"), str):
            raise UserError(file, f"label {label['id']} has no name", "a name as text")
        yield label["id"], label["name"].strip()
        inner = label.get("sublabels")
        for sublabel in inner if isinstance(inner, list) else ():
            yield from _names_in([sublabel], file)


def read_frames(path: Path) -> CvatFrames:
    """The frames of the task that a file of annotations is about.

    Raises:
        UserError: there is no such answer, or it is something else.
    """
    file = beside(path, "meta")
    if file is None:
        fix = f"save GET /api/tasks/…/data/meta as {path.with_name('meta.json')}"
        raise UserError(path, "the frames are numbers, and their media are not named", fix=fix)
    meta = read_json(file)
    listed = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(listed, list) or not listed or not all(map(_is_frame, listed)):
        raise UserError(file, "no list of frames with names", "the answer of CVAT's data/meta")
    size, start = _whole(meta, "size", len(listed), file), _whole(meta, "start_frame", 0, file)
    names = tuple(frame["name"] for frame in listed)
    is_video = len(names) == 1 and names[0].lower().endswith(VIDEO_SUFFIXES)
    if not is_video and len(names) < size:
        raise UserError(file, f"{len(names)} names for {size} frames", "a name for each picture")
    deleted = meta.get("deleted_frames")
    return CvatFrames(
        names,
        tuple((frame.get("width"), frame.get("height")) for frame in listed),
        is_video,
        start,
        _step(meta, file),
        _last(path, size - 1),
        frozenset(n for n in deleted if type(n) is int)
        if isinstance(deleted, list)
        else frozenset(),
    )


def _is_frame(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def _last(path: Path, last: int) -> int:
    file = beside(path, "job")
    if file is None:
        return last
    job = read_json(file)
    if not isinstance(job, dict):
        raise UserError(file, "no object", "the answer of CVAT's /api/jobs/ID")
    return min(_whole(job, "stop_frame", last, file), last)


def _step(meta: Entry, file: Path) -> int:
    text = meta.get("frame_filter") or "step=1"
    found = re.fullmatch(r"\s*step\s*=\s*([1-9][0-9]{0,8})\s*", str(text))
    if found is None:
        raise UserError(file, f"frame_filter is {text!r:.40}", "step=N")
    return int(found.group(1))


def _whole(values: Entry, key: str, default: int, file: Path) -> int:
    value = values.get(key)
    if value is None:
        return default
    if type(value) is not int or not 0 <= value < 2**31:
        raise UserError(file, f"{key} is {value!r:.40}", "a whole number from 0")
    return value


def lose(task: CvatAnswer, entry: Entry, key: str, reason: str, tally: Tally) -> None:
    """Count an entry that cannot be kept."""
    counts = tally.of(task.label(entry), "tag" if key == "tags" else kind_of(entry))
    counts.read()
    counts.drop(reason, task.place(key.removesuffix("s"), entry))


def skip(task: CvatAnswer, entry: Entry, key: str, tally: Tally) -> None:
    """Count an entry on a deleted frame."""
    counts = tally.of(task.label(entry), "tag" if key == "tags" else kind_of(entry))
    counts.read()
    counts.skip(DELETED, task.place(key.removesuffix("s"), entry))
