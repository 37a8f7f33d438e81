"""SA-V, the masklets of SAM 2: one JSON file per video, with masks in every fourth frame.

    {"video_id": "sav_000001", "video_frame_count": 483.0, "video_height": 848.0,
     "video_width": 480.0, "masklet_id": [0, 1], "masklet": [[{"size": …, "counts": …}, …], …]}

Masks: ``masklet[i][j]`` is object ``j`` as COCO run lengths; an empty mask means object absent.
Frames: ``masklet[i]`` is frame ``4 i`` of the video, from 0.
Gaps: between labeled frames, masks keep the nearer one (over at most 0.25 s) and count as
    interpolated.
Labels: ``object``, because masklets have no class; this is noted.
Media: the video is named like ``video_id``; its size and number of frames must match.
Skipped: empty masks.
Exhaustive labels: none.
Source: the readme of ``sav_dataset`` in facebookresearch/sam2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.geometry.frame_masks import EMPTY_MASK, is_empty, mask_of
from molmo_tune.labels.image_objects import stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

STEP = 4
LABEL = "object"
NO_CLASSES = "objects have no class: all are labeled 'object'"


def looks_like_sav(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return head.lstrip().startswith("{") and '"masklet"' in head


def read_sav(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, as a list of at most one.

    Raises:
        UserError: the file is not JSON of this format, or a name points outside the media folder.
    """
    data = read_json(path)
    frames = data.get("masklet") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not all(isinstance(masks, list) for masks in frames):
        raise UserError(path, "no masklet, a list of lists of masks", "SA-V JSON")
    name, size = data.get("video_id"), _size(data)
    names = (name,) if isinstance(name, str) else (path.stem,)
    count = stated_size(data.get("video_frame_count"), 1)
    video = open_video(media, names, (), str(path), tally, size, count[0] if count else None)
    objects = VideoObjects(video, tally, str(path))
    tally.note(NO_CLASSES, str(path))
    ids = data.get("masklet_id")
    for number, masks in enumerate(frames):
        for position, mask in enumerate(masks):
            has_id = isinstance(ids, list) and position < len(ids)
            id = str(ids[position]) if has_id and isinstance(ids, list) else str(position)
            _add(mask, id, number * STEP, f"{path}: object {id}, frame {number * STEP}", objects)
    sample = objects.sample(labeled_frames=range(0, len(frames) * STEP, STEP))
    return [sample] if sample is not None else []


def _add(mask: object, id: str, frame: int, place: str, objects: VideoObjects) -> None:
    if is_empty(mask):
        objects.skip(LABEL, "mask", place, EMPTY_MASK, absent=True)
    else:
        objects.add(LABEL, "mask", id, frame, place, lambda size: mask_of(mask, size))


def _size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    return stated_size(data.get("video_width"), data.get("video_height"))


READER = Reader(one_by_one(read_sav), looks_like_sav, "*.json", "SA-V (JSON with masklet)")
