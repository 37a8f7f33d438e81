"""Detections written by supervision's CSVSink or JSONSink: one object in one frame per row.

    x_min,y_min,x_max,y_max,class_id,confidence,tracker_id,class_name,frame_index

Boxes: corners in pixels from 0.
Frames: ``frame_index``, which counts from 0. The sinks write **no frame** by themselves; pass
    ``custom_data={"frame_index": n}``.
Classes: ``class_name``.
Media: the file is named like its video.
Refused: files without ``frame_index``.
Dropped: rows without ``tracker_id``, which have no identity.
Noted: the boxes are a model's.
Exhaustive labels: none.
Source: ``CSVSink`` and ``JSONSink`` of supervision.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.files.table_rows import Row, csv_rows
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.files.text_rows import whole
from molmo_tune.labels.formats.tracking.ultralytics_track import BY_MODEL
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

CORNERS = ("x_min", "y_min", "x_max", "y_max")
NO_IDENTITY = "no tracker_id: a detection without identity"
_FIX = 'pass custom_data={"frame_index": n} to the sink, n from 0'


def looks_like_supervision(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return all(name in head[:2000] for name in (*CORNERS, "class_id"))


def read_supervision(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, as a list of at most one.

    Raises:
        UserError: the file is not a table of this format, or has no ``frame_index``.
    """
    tally.note(BY_MODEL, str(path))
    rows = list(_json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path))
    video = open_video(media, (path.stem,), (), str(path), tally)
    objects = VideoObjects(video, tally, str(path))
    for place, row in rows:
        _add(row, place, objects)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _add(row: Row, place: str, objects: VideoObjects) -> None:
    label = _text(row.get("class_name"))
    frame, id = whole(_text(row.get("frame_index"))), whole(_text(row.get("tracker_id")))
    if id is None or id < 0:
        objects.drop(label, "box", place, NO_IDENTITY)
    else:
        corners = [_text(row.get(name)) for name in CORNERS]
        objects.add(label, "box", str(id), frame, place, lambda _: _box(corners))


def _box(corners: list[str]) -> Box:
    left, top, right, bottom = spelled(corners)
    if right < left or bottom < top:
        raise DroppedRowError(NEGATIVE)
    return Box((left, top, right, bottom))


def _csv_rows(path: Path) -> Iterable[tuple[str, Row]]:
    read_text(path)  # reports an empty file, or the line that is not UTF-8
    for place, row in csv_rows(path, CORNERS):
        _check_frame(row, place)
        yield place, row


def _json_rows(path: Path) -> Iterable[tuple[str, Row]]:
    data = read_json(path)
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise UserError(path, "not a list of rows", "a file of supervision's JSONSink")
    for number, row in enumerate(data, 1):
        place = f"{path}: row {number}"
        _check_frame(row, place)
        yield place, row


def _check_frame(row: Row, place: str) -> None:
    if "frame_index" not in row:
        raise UserError(place, "no frame_index", "a frame_index in every row", _FIX)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


READER = Reader(
    one_by_one(read_supervision),
    looks_like_supervision,
    "*.[cj]s[vo]*",
    "supervision CSVSink or JSONSink (with frame_index)",
)
