"""CVAT's REST API: the annotations of a task or job, ``GET /api/tasks/ID/annotations``.

    {"version": 0, "tags": [{"frame": 4, "label_id": 3}],
     "shapes": [{"id": 1, "type": "rectangle", "frame": 0, "label_id": 3, "points": [l, t, r, b],
                 "rotation": 45.9, "occluded": false, "outside": false, "elements": []}],
     "tracks": [{"id": 2, "label_id": 3, "shapes": [{"type": …, "frame": …, …}], "elements": []}]}

Names, frames and media stand in answers beside it (`molmo_tune.labels.cvat_rest_task`). The shapes
are those of CVAT's XML, written another way (`molmo_tune.labels.cvat_rest_nodes`), and are read as
those: ``points`` of a mask are its runs, then left, top, right and bottom pixel; of an ellipse the
centre, then the right and the top end. Tracks hold key frames only. What is between them moves on
straight lines, corner by corner and point by point (CVAT pairs the corners of polygons by their
place on the outline; where their numbers differ the nearer polygon is taken here). Before a key
frame that is ``outside`` the shape stays as it is, and after the last one to the end of the task,
or of the job if ``job.json`` is there. The points of a skeleton's track are tracks of their own:
where one has a key frame, the others are in between.

A task of pictures has shapes and tags (which are about a whole picture: losses), and tracks through
pictures are losses, too. In a video a shape is a track of one frame, and tags on successive frames
are one event. Frames that were deleted from the task are left out. Source: CVAT's
``dataset_manager/annotation.py`` and the answers in its ``tests/python/shared/assets``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.cvat_images import add_node
from molmo_tune.labels.cvat_rest_nodes import Entry, key_frames, kind_of, node_of
from molmo_tune.labels.cvat_rest_task import CvatFrames, read_frames, read_label_names
from molmo_tune.labels.cvat_video import is_outside, row_of, shape_of_values
from molmo_tune.labels.images import open_objects, stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.opening import read_json
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample, Track
from molmo_tune.labels.tracks import MISSING_VIDEO, NO_FRAME, Row, observations, unique
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, closed_sample, open_video

DELETED = "its frame was deleted from the task"
THROUGH_PICTURES = "a track through pictures: export it as CVAT for images 1.1"
NO_PICTURE = "its frame is not one of the task"
UNTIL_THE_END = (
    "the last key frame of a track holds to the end of the task (job.json ends it earlier)"
)


def looks_like_cvat_rest(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    keys = [bool(re.search(rf'"{key}"\s*:\s*\[', head)) for key in ("shapes", "tracks", "tags")]
    if not head.lstrip().startswith("{"):
        return False
    return all(keys) or (any(keys) and re.search(r'"label_id"\s*:', head) is not None)


@dataclass(frozen=True, slots=True)
class _Task:
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
        return f"{self.path}: {what} {entry.get('id', '')}, frame {entry.get('frame')}"


def read_cvat_rest(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample for a video, or one per picture with objects.

    Raises:
        UserError: this file or one of the answers beside it is something else or missing, or a
            name climbs out of the media folder.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not any(key in data for key in ("shapes", "tracks", "tags")):
        raise UserError(path, "no shapes, tracks or tags", "annotations of CVAT's REST API")
    lists = {key: _listed(data, key, path) for key in ("shapes", "tracks", "tags")}
    numbered = any("label_id" in entry for entries in lists.values() for entry in entries)
    names = read_label_names(path) if numbered else {}
    task = _Task(path, read_frames(path), names, lists)
    return (
        _of_video(task, media, tally) if task.frames.is_video else _of_pictures(task, media, tally)
    )


def _listed(data: Entry, key: str, path: Path) -> list[Entry]:
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise UserError(path, f"{key} is no list of objects", "annotations of CVAT's REST API")
    return value


# ---------------------------------------------------------------------------------------- pictures


def _of_pictures(task: _Task, media: MediaSource, tally: Tally) -> list[Sample]:
    by_frame: dict[int, list[Any]] = {}
    for key in ("shapes", "tags"):
        for entry in task.lists[key]:
            frame = entry.get("frame")
            if type(frame) is int and 0 <= frame < len(task.frames.names):
                by_frame.setdefault(frame, []).append((key, entry))
            else:
                _lose(task, entry, key, NO_PICTURE, tally)
    for track in task.lists["tracks"]:
        for shape in key_frames(track):
            counts = tally.of(task.label(track), kind_of(shape))
            counts.read()
            counts.drop(THROUGH_PICTURES, task.place("track", {**shape, "id": track.get("id")}))
    media.check_number(len(by_frame), task.path)
    found = (_picture(task, frame, by_frame[frame], media, tally) for frame in sorted(by_frame))
    return [sample for sample in found if sample is not None]


def _picture(
    task: _Task, frame: int, entries: list[Any], media: MediaSource, tally: Tally
) -> Sample | None:
    if frame in task.frames.deleted:
        for key, entry in entries:
            _leave_out(task, entry, key, tally)
        return None
    place, size = f"{task.path}: frame {frame}", stated_size(*task.frames.sizes[frame])
    objects = open_objects(media, [task.frames.names[frame]], place, size, tally)
    for key, entry in entries:
        node = node_of(entry, task.label, frame if key == "shapes" else None)
        add_node(node, objects, task.place(key[:-1], entry), tally)
    return objects.sample()


# ------------------------------------------------------------------------------------------- video


def _of_video(task: _Task, media: MediaSource, tally: Tally) -> list[Sample]:
    (name,), (size,) = task.frames.names, task.frames.sizes
    place = str(task.path)
    video = open_video(media, (name,), (), place, tally, stated_size(*size))
    taken: dict[str, int] = {}
    tracks = [
        *(_track(task, track, video, tally, taken) for track in task.lists["tracks"]),
        *(_shape_track(task, shape, video, tally, taken) for shape in task.lists["shapes"]),
    ]
    objects = VideoObjects(video, tally, place)
    spans = _events(task, objects)
    if video is None:
        return []
    kept = tuple(track for track in tracks if track is not None and track.observations)
    sample = closed_sample(video, (*kept, *spans), place, tally)
    return [sample] if sample is not None else []


def _track(
    task: _Task, track: Entry, video: OpenVideo | None, tally: Tally, taken: dict[str, int]
) -> Track | None:
    label, id = task.label(track), track.get("id", "")
    shapes = [{**shape, "id": id} for shape in key_frames(track)]
    rows = [_row(task, label, shape, "track", video, tally) for shape in shapes]
    known = _held([row for row in rows if row is not None], task.frames)
    if known and known[-1].holds_to > known[-1].frame_index:
        tally.note(UNTIL_THE_END, f"{task.path}: track {id}")
    return _closed(label, track, known, video, tally, taken)


def _held(rows: list[Row], frames: CvatFrames) -> list[Row]:
    """Rows in order, each with how long it stays where no key frame says where it moves."""
    rows = sorted(rows, key=lambda row: row.frame_index)
    last = frames.in_video(frames.last)
    held = [replace(row, keyed=True) for row in rows]
    for number, row in enumerate(rows):
        after = rows[number + 1] if number + 1 < len(rows) else None
        if row.shows and (after is None or (after.ends and not after.shows)):
            end = last if after is None else after.frame_index - frames.step
            held[number] = replace(held[number], holds_to=-1 if end is None else end)
    return held


def _shape_track(
    task: _Task, shape: Entry, video: OpenVideo | None, tally: Tally, taken: dict[str, int]
) -> Track | None:
    label = task.label(shape)
    row = _row(task, label, shape, "shape", video, tally)
    return _closed(label, shape, [row] if row is not None else [], video, tally, taken)


def _closed(
    label: str,
    entry: Entry,
    rows: Sequence[Row],
    video: OpenVideo | None,
    tally: Tally,
    taken: dict[str, int],
) -> Track | None:
    if video is None:
        return None
    found = observations(rows, video.info, shape_of_values, lambda kind: tally.of(label, kind))
    return Track(unique(str(entry.get("id", "track")), taken), label, found)


def _row(
    task: _Task, label: str, shape: Entry, what: str, video: OpenVideo | None, tally: Tally
) -> Row | None:
    place, frame = task.place(what, shape), shape.get("frame")
    if video is None:
        _lose(task, {**shape, "label": label}, what, MISSING_VIDEO, tally)
        return None
    if type(frame) is int and frame in task.frames.deleted:
        counts = tally.of(label, kind_of(shape))
        counts.read()
        counts.leave_out(DELETED, place)
        return None
    node = node_of(shape, task.label, task.frames.in_video(frame))
    row = row_of(node, label, place, video.info, tally)
    return replace(row, ends=True) if row is not None and is_outside(node) else row


def _events(task: _Task, objects: VideoObjects) -> list[Any]:
    """Tags on successive frames of the task are one event."""
    tags = sorted(
        (tag for tag in task.lists["tags"] if type(tag.get("frame")) is int),
        key=lambda tag: (task.label(tag), tag["frame"]),
    )
    runs: list[list[Entry]] = []
    for tag in tags:
        before = runs[-1][-1] if runs else None
        if tag["frame"] in task.frames.deleted:
            objects.leave_out(task.label(tag), "tag", task.place("tag", tag), DELETED, absent=True)
        elif (
            before
            and task.label(before) == task.label(tag)
            and (0 <= tag["frame"] - before["frame"] <= 1)
        ):
            runs[-1].append(tag)
            objects.merged(task.label(tag), task.place("tag", tag))
        else:
            runs.append([tag])
    for tag in task.lists["tags"]:
        if type(tag.get("frame")) is not int:
            objects.drop(task.label(tag), "tag", task.place("tag", tag), NO_FRAME)
    for run in sorted(runs, key=lambda run: run[0]["frame"]):
        first, last = (task.frames.in_video(tag["frame"]) for tag in (run[0], run[-1]))
        start = None if first is None else objects.frame_time(first)
        end = None if last is None else objects.frame_end(last)
        objects.span(task.label(run[0]), start, end, task.place("tag", run[0]))
    return objects.spans


def _lose(task: _Task, entry: Entry, key: str, reason: str, tally: Tally) -> None:
    counts = tally.of(task.label(entry), "tag" if key == "tags" else kind_of(entry))
    counts.read()
    counts.drop(reason, task.place(key.removesuffix("s"), entry))


def _leave_out(task: _Task, entry: Entry, key: str, tally: Tally) -> None:
    counts = tally.of(task.label(entry), "tag" if key == "tags" else kind_of(entry))
    counts.read()
    counts.leave_out(DELETED, task.place(key.removesuffix("s"), entry))


READER = Reader(
    one_by_one(read_cvat_rest),
    looks_like_cvat_rest,
    "*annotations*.json",
    "CVAT REST API (JSON with shapes, tracks and tags)",
)
