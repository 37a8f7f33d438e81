"""Responses of a CVAT server that accompany a task's annotations: label names, frames, media.

The annotations of the REST API contain numbers only. Two more responses, saved in the same folder,
give their meaning:

    labels.json   GET /api/labels?task_id=ID       {"results": [{"id": 3, "name": "car",
                                                     "sublabels": [{"id": 19, "name": "nose"}]}]}
    meta.json     GET /api/tasks/ID/data/meta      {"frames": [{"name": "clip.mp4", "width": …}],
                                                     "size": 30, "start_frame": 10,
                                                     "frame_filter": "step=3", "deleted_frames": []}
    job.json      GET /api/jobs/ID                 optional, the end of a job: {"stop_frame": 19}

Several tasks in one folder are distinguished by a prefix: ``12_annotations.json``,
``12_labels.json``, ``12_meta.json``. A frame is a number within the task, even in a job:
``start_frame + frame * step`` is the frame of the video. One name of a video file means a video
task; otherwise the task has images, with one name per frame. If a response is missing, nothing is
guessed.
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

DELETED = "frame deleted from the task"


@dataclass(frozen=True, slots=True)
class CvatFrames:
    """Frames of a task.

    Args:
        names: names of the images, or the name of the video.
        sizes: stated width and height for each name.
        is_video: whether the task is about a video.
        start: index in the video of the task's first frame.
        step: frames of the video per frame of the task.
        last: last frame number in the task.
        deleted: frame numbers deleted from the task.
    """

    names: tuple[str, ...]
    sizes: tuple[tuple[object, object], ...]
    is_video: bool
    start: int
    step: int
    last: int
    deleted: frozenset[int]

    def in_video(self, frame: object) -> int | None:
        """Return the index in the video of a frame of the task, None if it is not a number."""
        is_valid = type(frame) is int and abs(frame) < 2**31
        return self.start + int(str(frame)) * self.step if is_valid else None


@dataclass(frozen=True, slots=True)
class CvatAnnotations:
    """Annotations of a task with their label names and frames."""

    path: Path
    frames: CvatFrames
    names: Mapping[int, str]
    lists: Mapping[str, list[Entry]]

    def label(self, entry: Entry) -> str:
        """Return the class label of an entry; CVAT backups store the name itself."""
        id, name = entry.get("label_id"), entry.get("label")
        return self.names.get(id, "") if type(id) is int else str(name or "").strip()

    def place(self, what: str, entry: Entry) -> str:
        """Return the place of an entry for the report."""
        return f"{self.path}: {what} {entry.get('id', '')}, frame {entry.get('frame')}"


def companion(path: Path, what: str) -> Path | None:
    """Return the response file that accompanies a file of annotations."""
    named = path.with_name(path.name.replace("annotations", what))
    plain = path.with_name(f"{what}.json")
    return next((file for file in (named, plain) if file != path and file.is_file()), None)


def read_label_names(path: Path) -> dict[int, str]:
    """Return the names of labels and sublabels by id.

    Raises:
        UserError: the response is missing or invalid.
    """
    file = companion(path, "labels")
    if file is None:
        fix = f"save GET /api/labels?task_id=… as {path.with_name('labels.json')}"
        raise UserError(path, "the file with the names of the labels is missing", fix=fix)
    data = read_json(file)
    for key in ("results", "labels"):
        data = data.get(key, data) if isinstance(data, dict) else data
    if not isinstance(data, list):
        raise UserError(file, "no list of labels", "the response of CVAT's /api/labels")
    return dict(_names_in(data, file))


def _names_in(labels: list[Any], file: Path) -> Iterator[tuple[int, str]]:
    for label in labels:
        if not isinstance(label, dict) or type(label.get("id")) is not int:
            raise UserError(file, "a label without an id", "the response of CVAT's /api/labels")
        if not isinstance(label.get("name"), str):
            raise UserError(file, f"label {label['id']} has no name", "a name as text")
        yield label["id"], label["name"].strip()
        inner = label.get("sublabels")
        for sublabel in inner if isinstance(inner, list) else ():
            yield from _names_in([sublabel], file)


def read_frames(path: Path) -> CvatFrames:
    """Return the frames of the task of a file of annotations.

    Raises:
        UserError: the response is missing or invalid.
    """
    file = companion(path, "meta")
    if file is None:
        fix = f"save GET /api/tasks/…/data/meta as {path.with_name('meta.json')}"
        raise UserError(path, "the file with the names of the media is missing", fix=fix)
    meta = read_json(file)
    listed = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(listed, list) or not listed or not all(map(_is_frame, listed)):
        raise UserError(file, "no list of frames with names", "the response of CVAT's data/meta")
    size, start = _integer(meta, "size", len(listed), file), _integer(meta, "start_frame", 0, file)
    names = tuple(frame["name"] for frame in listed)
    is_video = len(names) == 1 and names[0].lower().endswith(VIDEO_SUFFIXES)
    if not is_video and len(names) < size:
        raise UserError(file, f"{len(names)} names for {size} frames", "a name for each image")
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
    file = companion(path, "job")
    if file is None:
        return last
    job = read_json(file)
    if not isinstance(job, dict):
        raise UserError(file, "not a JSON object", "the response of CVAT's /api/jobs/ID")
    return min(_integer(job, "stop_frame", last, file), last)


def _step(meta: Entry, file: Path) -> int:
    text = meta.get("frame_filter") or "step=1"
    found = re.fullmatch(r"\s*step\s*=\s*([1-9][0-9]{0,8})\s*", str(text))
    if found is None:
        raise UserError(file, f"frame_filter is {text!r:.40}", "step=N")
    return int(found.group(1))


def _integer(values: Entry, key: str, default: int, file: Path) -> int:
    value = values.get(key)
    if value is None:
        return default
    if type(value) is not int or not 0 <= value < 2**31:
        raise UserError(file, f"{key} is {value!r:.40}", "an integer of at least 0")
    return value


def drop_entry(task: CvatAnnotations, entry: Entry, key: str, reason: str, tally: Tally) -> None:
    """Count an entry as dropped."""
    counts = tally.of(task.label(entry), "tag" if key == "tags" else kind_of(entry))
    counts.read()
    counts.drop(reason, task.place(key.removesuffix("s"), entry))


def skip_entry(task: CvatAnnotations, entry: Entry, key: str, tally: Tally) -> None:
    """Count an entry in a deleted frame as skipped."""
    counts = tally.of(task.label(entry), "tag" if key == "tags" else kind_of(entry))
    counts.read()
    counts.skip(DELETED, task.place(key.removesuffix("s"), entry))
