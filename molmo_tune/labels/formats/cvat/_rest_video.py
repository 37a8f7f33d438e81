"""CVAT video task of the REST API: tracks by key frames, single shapes, tags.

A single shape is a track of one frame; tags in successive frames are one event.
`formats.cvat.cvat_rest` defines the interpolation between key frames and how long a shape stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from molmo_tune.labels.formats.cvat._rest_nodes import Entry, key_frames, kind_of, node_of
from molmo_tune.labels.formats.cvat._rest_task import (
    DELETED,
    CvatAnnotations,
    CvatFrames,
    drop_entry,
)
from molmo_tune.labels.formats.cvat.cvat_video import is_outside, row_of, shape_of_values
from molmo_tune.labels.image_objects import stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample, Span, Track
from molmo_tune.labels.tracks import MISSING_VIDEO, NO_FRAME, Row, observations, unique
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, closed_sample, open_video

UNTIL_THE_END = (
    "last key frame of a track holds to the end of the task, or of the job with job.json"
)


def read_video(task: CvatAnnotations, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of the video, if it has annotations.

    Raises:
        UserError: the name points outside the media folder, or several videos match.
    """
    (name,), (size,) = task.frames.names, task.frames.sizes
    place = str(task.path)
    video = open_video(media, (name,), (), place, tally, stated_size(*size))
    ids: dict[str, int] = {}
    tracks = [
        *(_track(task, track, video, tally, ids) for track in task.lists["tracks"]),
        *(_shape_track(task, shape, video, tally, ids) for shape in task.lists["shapes"]),
    ]
    objects = VideoObjects(video, tally, place)
    spans = _events(task, objects)
    if video is None:
        return []
    kept = tuple(track for track in tracks if track is not None and track.observations)
    sample = closed_sample(video, (*kept, *spans), place, tally)
    return [sample] if sample is not None else []


def _track(
    task: CvatAnnotations,
    track: Entry,
    video: OpenVideo | None,
    tally: Tally,
    ids: dict[str, int],
) -> Track | None:
    label, id = task.label(track), track.get("id", "")
    shapes = [{**shape, "id": id} for shape in key_frames(track)]
    rows = [_row(task, label, shape, "track", video, tally) for shape in shapes]
    held = _held([row for row in rows if row is not None], task.frames)
    if held and held[-1].holds_to > held[-1].frame_index:
        tally.note(UNTIL_THE_END, f"{task.path}: track {id}")
    return _finished_track(label, track, held, video, tally, ids)


def _held(rows: list[Row], frames: CvatFrames) -> list[Row]:
    """Return rows in order, each with its last frame where no later key frame moves it."""
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
    task: CvatAnnotations,
    shape: Entry,
    video: OpenVideo | None,
    tally: Tally,
    ids: dict[str, int],
) -> Track | None:
    label = task.label(shape)
    row = _row(task, label, shape, "shape", video, tally)
    return _finished_track(label, shape, [row] if row is not None else [], video, tally, ids)


def _finished_track(
    label: str,
    entry: Entry,
    rows: Sequence[Row],
    video: OpenVideo | None,
    tally: Tally,
    ids: dict[str, int],
) -> Track | None:
    if video is None:
        return None
    found = observations(rows, video.info, shape_of_values, lambda kind: tally.of(label, kind))
    return Track(unique(str(entry.get("id", "track")), ids), label, found)


def _row(
    task: CvatAnnotations,
    label: str,
    shape: Entry,
    what: str,
    video: OpenVideo | None,
    tally: Tally,
) -> Row | None:
    place, frame = task.place(what, shape), shape.get("frame")
    if video is None:
        drop_entry(task, {**shape, "label": label}, what, MISSING_VIDEO, tally)
        return None
    if type(frame) is int and frame in task.frames.deleted:
        counts = tally.of(label, kind_of(shape))
        counts.read()
        counts.skip(DELETED, place)
        return None
    node = node_of(shape, task.label, task.frames.in_video(frame))
    row = row_of(node, label, place, video.info, tally)
    return replace(row, ends=True) if row is not None and is_outside(node) else row


def _events(task: CvatAnnotations, objects: VideoObjects) -> list[Span]:
    """Return one event for tags in successive frames of the task."""
    tags = sorted(
        (tag for tag in task.lists["tags"] if type(tag.get("frame")) is int),
        key=lambda tag: (task.label(tag), tag["frame"]),
    )
    runs: list[list[Entry]] = []
    for tag in tags:
        before = runs[-1][-1] if runs else None
        if tag["frame"] in task.frames.deleted:
            objects.skip(task.label(tag), "tag", task.place("tag", tag), DELETED, absent=True)
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
