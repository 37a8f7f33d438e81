"""TAO and other COCO JSON of videos: a row per object and frame, with ``track_id``.

    {"videos": [{"id": 0, "name": "train/YFCC100M/v_f69e", "width": …, "neg_category_ids": [342],
                 "not_exhaustive_category_ids": [95]}],
     "images": [{"id": 1, "video_id": 0, "frame_index": 420, "file_name": "…/frame0421.jpg"}],
     "annotations": [{"image_id": 1, "track_id": 3, "category_id": 95, "bbox": [x, y, w, h]}]}

Coordinates: pixels, origin at the top left.
Times: ``frame_index`` counts from 0 in the video. If it is missing (mmtracking's layout, whose
    objects have an ``instance_id``), the last number in a frame's name is its index, or its
    position if the video has as many frames as names.
Objects: the box; a segmentation only if it is run lengths, because TAO's polygons repeat the boxes.
    TAO labels about one frame per second; gaps are filled (`geometry.interpolation`).
Media: the video's ``name``, else the folder of its first image.
Skipped: groups (``iscrowd: 1``).
Dropped: annotations whose video or category is not listed, or without an id.
Exhaustive labels: per video, those in ``neg_category_ids`` (verified absent) and the present ones
    outside ``not_exhaustive_category_ids``; without these lists none. A label that is neither
    present nor listed is unknown, not absent.
Source: TAO's annotation format, mmtracking's CocoVID.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from molmo_tune.labels.files.text_rows import whole
from molmo_tune.labels.formats.coco._video_json import (
    GROUP,
    UNKNOWN_CATEGORY,
    Row,
    VideoJson,
    key_of,
    kind_of,
    shape_of,
)
from molmo_tune.labels.geometry.frame_masks import frame_numbers
from molmo_tune.labels.image_objects import stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, open_video

NO_IDENTITY = "neither track_id nor instance_id: detection without identity"


def looks_like_tao(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    is_object = head.lstrip().startswith("{") and '"file_names"' not in head
    return is_object and '"videos"' in head and bool(re.search(r'"(track|instance)_id"', head))


def read_tao(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video, in file order.

    Raises:
        UserError: the file is not JSON with these lists, or a name points outside the media folder.
    """
    data = VideoJson(path, tally)
    images: dict[object, list[Row]] = {key: [] for key in data.rows}
    for image in data.listed("images"):
        images.setdefault(key_of(image.get("video_id")), []).append(image)
    media.check_single_file(len(data.videos), path)
    found = (_sample(v, images[key_of(v.get("id"))], data, media, tally) for v in data.videos)
    return [sample for sample in found if sample is not None]


def _sample(
    entry: Row, images: list[Row], data: VideoJson, media: MediaSource, tally: Tally
) -> Sample | None:
    place, name = f"{data.path}: video {entry.get('id')}", entry.get("name")
    first = str(images[0].get("file_name", "")) if images else ""
    folder = PurePosixPath(first).parent
    names = (name,) if isinstance(name, str) else (str(folder),) if folder.name else ()
    size = stated_size(entry.get("width"), entry.get("height"))
    video = open_video(media, names, (), place, tally, size)
    objects = VideoObjects(video, tally, place)
    frames = _frames(images, video)
    rows = data.rows[key_of(entry.get("id"))]
    for row in rows:
        _add(row, frames, data, objects)
    labeled = [frame for frame in frames.values() if frame is not None]
    return objects.sample(_exhaustive(entry, rows, data), labeled)


def _frames(images: list[Row], video: OpenVideo | None) -> dict[object, int | None]:
    """Return the frame index of each image id."""
    stated = {key_of(i.get("id")): whole(str(i.get("frame_index"))) for i in images}
    if None not in stated.values():
        return stated
    ordered = sorted(images, key=lambda image: (_number(image), str(image.get("file_name"))))
    names = [str(image.get("file_name", "")) for image in ordered]
    frames = frame_numbers(names, video.info.num_frames if video else -1)
    return {key_of(i.get("id")): frame for i, frame in zip(ordered, frames, strict=True)}


def _number(image: Row) -> int:
    return whole(str(image.get("frame_id"))) or 0


def _add(
    row: Row, frames: Mapping[object, int | None], data: VideoJson, objects: VideoObjects
) -> None:
    label, place = data.label(row.get("category_id")), data.place(row)
    runs = row.get("segmentation")
    mask = runs if isinstance(runs, Mapping) else None
    id = row.get("track_id", row.get("instance_id"))
    kind = kind_of(mask)
    if not label:
        objects.drop("", kind, place, UNKNOWN_CATEGORY)
    elif row.get("iscrowd") == 1:
        objects.skip(label, kind, place, GROUP)
    elif key_of(id) is None:
        objects.drop(label, kind, place, NO_IDENTITY)
    else:
        frame = frames.get(key_of(row.get("image_id")))
        box = row.get("bbox")
        objects.add(label, kind, str(id), frame, place, lambda size: shape_of(mask, box, size))


def _exhaustive(entry: Row, rows: Iterable[Row], data: VideoJson) -> list[str]:
    absent, partial = entry.get("neg_category_ids"), entry.get("not_exhaustive_category_ids")
    if not isinstance(absent, list) or not isinstance(partial, list):
        return []
    incomplete = {key_of(id) for id in partial}
    present = [key_of(row.get("category_id")) for row in rows]
    complete = [id for id in present if id not in incomplete]
    looked_for = [key_of(id) for id in absent if key_of(id) not in set(present) | incomplete]
    return [label for id in (*complete, *looked_for) if (label := data.label(id))]


READER = Reader(
    one_by_one(read_tao),
    looks_like_tao,
    "*.json",
    "TAO or COCO JSON of videos (videos, images, track_id)",
)
