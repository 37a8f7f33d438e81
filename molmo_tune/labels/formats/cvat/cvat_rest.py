"""CVAT's REST API: the annotations of a task or job, ``GET /api/tasks/ID/annotations``.

    {"version": 0, "tags": [{"frame": 4, "label_id": 3}],
     "shapes": [{"id": 1, "type": "rectangle", "frame": 0, "label_id": 3, "points": [l, t, r, b],
                 "rotation": 45.9, "occluded": false, "outside": false, "elements": []}],
     "tracks": [{"id": 2, "label_id": 3, "shapes": [{"type": …, "frame": …, …}], "elements": []}]}

Names, frames and media stand in answers beside it (`formats.cvat._rest_task`). The shapes
are those of CVAT's XML, written another way (`formats.cvat._rest_nodes`), and are read as
those: ``points`` of a mask are its runs, then left, top, right and bottom pixel; of an ellipse the
center, then the right and the top end. Tracks hold key frames only. What is between them moves on
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
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.formats.cvat._rest_nodes import Entry, key_frames, kind_of, node_of
from molmo_tune.labels.formats.cvat._rest_task import (
    CvatAnswer,
    lose,
    read_frames,
    read_label_names,
    skip,
)
from molmo_tune.labels.formats.cvat._rest_video import read_video
from molmo_tune.labels.formats.cvat.cvat_images import add_node
from molmo_tune.labels.image_objects import open_objects, stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample

THROUGH_PICTURES = "a track through pictures: export it as CVAT for images 1.1"
NO_PICTURE = "its frame is not one of the task"


def looks_like_cvat_rest(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    keys = [bool(re.search(rf'"{key}"\s*:\s*\[', head)) for key in ("shapes", "tracks", "tags")]
    if not head.lstrip().startswith("{"):
        return False
    return all(keys) or (any(keys) and re.search(r'"label_id"\s*:', head) is not None)


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
    task = CvatAnswer(path, read_frames(path), names, lists)
    return (
        read_video(task, media, tally) if task.frames.is_video else _of_pictures(task, media, tally)
    )


def _listed(data: Entry, key: str, path: Path) -> list[Entry]:
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise UserError(path, f"{key} is no list of objects", "annotations of CVAT's REST API")
    return value


def _of_pictures(task: CvatAnswer, media: MediaSource, tally: Tally) -> list[Sample]:
    by_frame: dict[int, list[Any]] = {}
    for key in ("shapes", "tags"):
        for entry in task.lists[key]:
            frame = entry.get("frame")
            if type(frame) is int and 0 <= frame < len(task.frames.names):
                by_frame.setdefault(frame, []).append((key, entry))
            else:
                lose(task, entry, key, NO_PICTURE, tally)
    for track in task.lists["tracks"]:
        for shape in key_frames(track):
            counts = tally.of(task.label(track), kind_of(shape))
            counts.read()
            counts.drop(THROUGH_PICTURES, task.place("track", {**shape, "id": track.get("id")}))
    media.check_number(len(by_frame), task.path)
    found = (_picture(task, frame, by_frame[frame], media, tally) for frame in sorted(by_frame))
    return [sample for sample in found if sample is not None]


def _picture(
    task: CvatAnswer, frame: int, entries: list[Any], media: MediaSource, tally: Tally
) -> Sample | None:
    if frame in task.frames.deleted:
        for key, entry in entries:
            skip(task, entry, key, tally)
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
