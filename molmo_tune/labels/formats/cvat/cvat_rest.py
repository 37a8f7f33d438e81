"""CVAT's REST API: the annotations of a task or job, ``GET /api/tasks/ID/annotations``.

    {"version": 0, "tags": [{"frame": 4, "label_id": 3}],
     "shapes": [{"id": 1, "type": "rectangle", "frame": 0, "label_id": 3, "points": [l, t, r, b],
                 "rotation": 45.9, "occluded": false, "outside": false, "elements": []}],
     "tracks": [{"id": 2, "label_id": 3, "shapes": [{"type": …, "frame": …, …}], "elements": []}]}

The names of labels and media are read from more responses in the same folder: ``labels.json`` (GET
/api/labels?task_id=ID), ``meta.json`` (GET /api/tasks/ID/data/meta) and, for a job, ``job.json``
(GET /api/jobs/ID). Several tasks in one folder have a prefix: ``12_annotations.json``,
``12_labels.json``, ``12_meta.json``.

Coordinates: pixels, origin at the top left. The ``points`` of a mask are its runs, then its left,
    top, right and bottom pixel; those of an ellipse are its center, then its right and top end.
Times: frame numbers count from 0 in the task; ``meta.json`` maps them to the video.
Objects: a track has key frames only. Between them, corners and points move linearly (CVAT matches
    the corners of polygons by their place on the outline; here, polygons with different numbers of
    corners are copied from the nearer key frame). Before a key frame that is ``outside``, the shape
    stays as it is; after the last key frame, it stays to the end of the task, or of the job with
    ``job.json``. Each point of a skeleton has its own track; where one has a key frame, the others
    are interpolated. In a video, a shape is a track of one frame, and tags in successive frames are
    one event.
Skipped: annotations in frames that were deleted from the task; in videos, ``outside`` objects.
Dropped: in tasks of images, tags (which describe the whole image) and tracks; otherwise as in
    cvat_images.
Exhaustive labels: none.
Source: CVAT's ``dataset_manager/annotation.py`` and the responses in its
    ``tests/python/shared/assets``.
"""

from __future__ import annotations

import re
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.formats.cvat._rest_nodes import Entry, key_frames, kind_of, node_of
from molmo_tune.labels.formats.cvat._rest_task import (
    CvatAnnotations,
    drop_entry,
    read_frames,
    read_label_names,
    skip_entry,
)
from molmo_tune.labels.formats.cvat._rest_video import read_video
from molmo_tune.labels.formats.cvat.cvat_images import add_node
from molmo_tune.labels.image_objects import open_objects, stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample

TRACK_IN_IMAGES = "track through images; export the task as CVAT for images 1.1"
UNKNOWN_FRAME = "frame not in the task"


def looks_like_cvat_rest(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    keys = [bool(re.search(rf'"{key}"\s*:\s*\[', head)) for key in ("shapes", "tracks", "tags")]
    if not head.lstrip().startswith("{"):
        return False
    return all(keys) or (any(keys) and re.search(r'"label_id"\s*:', head) is not None)


def read_cvat_rest(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample for a video, or one per image with objects.

    Raises:
        UserError: this file or an accompanying response is missing or invalid, or a name points
            outside the media folder.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not any(key in data for key in ("shapes", "tracks", "tags")):
        raise UserError(path, "no shapes, tracks or tags", "annotations of CVAT's REST API")
    lists = {key: _listed(data, key, path) for key in ("shapes", "tracks", "tags")}
    has_ids = any("label_id" in entry for entries in lists.values() for entry in entries)
    names = read_label_names(path) if has_ids else {}
    task = CvatAnnotations(path, read_frames(path), names, lists)
    return (
        read_video(task, media, tally)
        if task.frames.is_video
        else _image_samples(task, media, tally)
    )


def _listed(data: Entry, key: str, path: Path) -> list[Entry]:
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise UserError(path, f"{key} is not a list of objects", "annotations of CVAT's REST API")
    return value


def _image_samples(task: CvatAnnotations, media: MediaSource, tally: Tally) -> list[Sample]:
    by_frame: dict[int, list[tuple[str, Entry]]] = {}
    for key in ("shapes", "tags"):
        for entry in task.lists[key]:
            frame = entry.get("frame")
            if type(frame) is int and 0 <= frame < len(task.frames.names):
                by_frame.setdefault(frame, []).append((key, entry))
            else:
                drop_entry(task, entry, key, UNKNOWN_FRAME, tally)
    for track in task.lists["tracks"]:
        for shape in key_frames(track):
            counts = tally.of(task.label(track), kind_of(shape))
            counts.read()
            counts.drop(TRACK_IN_IMAGES, task.place("track", {**shape, "id": track.get("id")}))
    media.check_single_file(len(by_frame), task.path)
    found = (
        _image_sample(task, frame, by_frame[frame], media, tally) for frame in sorted(by_frame)
    )
    return [sample for sample in found if sample is not None]


def _image_sample(
    task: CvatAnnotations,
    frame: int,
    entries: list[tuple[str, Entry]],
    media: MediaSource,
    tally: Tally,
) -> Sample | None:
    if frame in task.frames.deleted:
        for key, entry in entries:
            skip_entry(task, entry, key, tally)
        return None
    place, size = f"{task.path}: frame {frame}", stated_size(*task.frames.sizes[frame])
    objects = open_objects(media, [task.frames.names[frame]], place, size, tally)
    for key, entry in entries:
        node = node_of(entry, task.label, frame if key == "shapes" else None)
        add_node(node, objects, task.place(key[:-1], entry), tally)
    return objects.sample()


READER = Reader(
    one_by_one(read_cvat_rest),
    looks_like_cvat_rest,
    "*annotations*.json",
    "CVAT REST API (JSON with shapes, tracks and tags)",
)
