"""YouTube-VIS JSON (also OVIS, UVO): a row per *object*, with a mask or null for every frame.

    {"videos": [{"id": 1, "width": …, "height": …, "length": 3, "file_names": ["v/00000.jpg", …]}],
     "annotations": [{"video_id": 1, "category_id": 3, "iscrowd": 0,
                      "segmentations": [{"size": …, "counts": …}, null, …], "bboxes": [[…], …]}]}

Coordinates: pixels, origin at the top left.
Times: the last number in a file name is the frame's index, or its position if the video has as many
    frames as names. These datasets label about every fifth frame; gaps are filled
    (`geometry.interpolation`).
Objects: masks; in a frame with a box but no mask, the box. A null or empty mask means absent.
Media: the folder of ``file_names``, else the video's ``name``.
Skipped: groups (``iscrowd: 1``), and frames in which an object is absent.
Dropped: rows whose video or category is not listed, or without masks and boxes.
Exhaustive labels: none.
Source: YouTube-VIS's annotation format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from molmo_tune.labels.formats.coco._video_json import (
    GROUP,
    UNKNOWN_CATEGORY,
    Row,
    VideoJson,
    key_of,
    kind_of,
    shape_of,
)
from molmo_tune.labels.geometry.frame_masks import EMPTY_MASK, frame_numbers, is_empty
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample, Shape
from molmo_tune.labels.video_objects import VideoObjects, open_video

NO_MASKS = "no masks or boxes per frame"


def looks_like_youtube_vis(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    return head.lstrip().startswith("{") and '"file_names"' in head and '"videos"' in head


def read_youtube_vis(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video, in file order.

    Raises:
        UserError: the file is not JSON with these lists, or a name points outside the media folder.
    """
    data = VideoJson(path, tally)
    media.check_single_file(len(data.videos), path)
    found = (_sample(video, data, media, tally) for video in data.videos)
    return [sample for sample in found if sample is not None]


def _sample(entry: Row, data: VideoJson, media: MediaSource, tally: Tally) -> Sample | None:
    place = f"{data.path}: video {entry.get('id')}"
    listed = entry.get("file_names")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    folder = str(PurePosixPath(names[0]).parent) if names else ""
    size = stated_size(entry.get("width"), entry.get("height"))
    media_names = tuple(
        name for name in (folder, str(entry.get("name") or "")) if name not in ("", ".")
    )
    video = open_video(media, media_names, (), place, tally, size)
    objects = VideoObjects(video, tally, place)
    frames = frame_numbers(names, video.info.num_frames if video else -1)
    for row in data.rows[key_of(entry.get("id"))]:
        _add(row, frames, data, objects)
    return objects.sample(labeled_frames=[frame for frame in frames if frame is not None])


def _add(row: Row, frames: Sequence[int | None], data: VideoJson, objects: VideoObjects) -> None:
    label, place = data.label(row.get("category_id")), data.place(row)
    masks, boxes = row.get("segmentations"), row.get("bboxes")
    masks = masks if isinstance(masks, list) else []
    boxes = boxes if isinstance(boxes, list) else []
    if not label or not (masks or boxes):
        objects.drop(label, "object", place, NO_MASKS if label else UNKNOWN_CATEGORY)
        return
    if row.get("iscrowd") == 1:
        objects.skip(label, "object", place, GROUP)
        return
    for number in range(max(len(masks), len(boxes))):
        mask = masks[number] if number < len(masks) else None
        box = boxes[number] if number < len(boxes) else None
        where, kind = f"{place}, frame {number}", kind_of(mask) if mask or box else "mask"
        if (mask is None and not box) or is_empty(mask):
            objects.skip(label, kind, where, EMPTY_MASK, absent=True)
            continue

        def make(size: SizeWH, mask: object = mask, box: object = box) -> Shape:
            return shape_of(mask, box, size)

        frame = frames[number] if number < len(frames) else None
        objects.add(label, kind, str(row.get("id")), frame, where, make)


READER = Reader(
    one_by_one(read_youtube_vis),
    looks_like_youtube_vis,
    "*.json",
    "YouTube-VIS JSON (videos with file_names)",
)
