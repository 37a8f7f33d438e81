"""Molmo2-VideoTrack of Ai2: one expression per row, with a point of each object in every frame.

    {"id": "1", "video": "abc", "clip": "abc_10_90", "start_frame": 10, "end_frame": 90, "w": 640,
     "h": 360, "exp": "the left dog", "points": [{"object_id": 3, "points": [[10.5, 20], [], …]}]}

Points: pixels from 0. An empty point means that the object is absent; occlusion was not recorded.
Frames: the n-th point of a list is on frame n of the *clip*, from 0.
Labels: the expression, with a track for each of its objects.
Media: the clip or the complete video, named like ``clip`` or ``video``. With as many frames as the
    list has points it is the clip, otherwise the complete video, in which the clip starts at
    ``start_frame``. Its size must be ``w`` by ``h``.
Skipped: empty points.
Exhaustive labels: none.
Source: Ai2's loader of ``allenai/Molmo2-VideoTrack``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molmo_tune.labels.files.table_rows import Row
from molmo_tune.labels.files.text_rows import whole
from molmo_tune.labels.formats.ai2._molmo2_rows import Placed, rows_by_video
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import DroppedRowError, floats, stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Point, Sample
from molmo_tune.labels.tracks import NOT_A_NUMBER
from molmo_tune.labels.video_objects import VideoObjects, open_video

COLUMNS = ("video", "clip", "start_frame", "exp", "w", "h", "points")
ABSENT = "an empty point: object absent"


def looks_like_molmo2_video_track(head: str) -> bool:
    """Return whether the head of a file looks like JSON of this format."""
    is_json = head.lstrip()[:1] in ("[", "{")
    return is_json and all(f'"{name}"' in head for name in ("clip", "exp", "object_id"))


def read_molmo2_video_track(
    files: Sequence[Path], media: MediaSource, tally: Tally
) -> list[Sample]:
    """Return one sample per clip, in order of first appearance.

    Raises:
        UserError: a file is not a table of this format, or a name points outside the media folder.
    """
    clips = rows_by_video(files, COLUMNS, ("clip", "video"))
    media.check_single_file(len(clips), files[0])
    found = (_sample(names, rows, media, tally) for names, rows in clips.items())
    return [sample for sample in found if sample is not None]


def _sample(
    names: tuple[str, ...], rows: Sequence[Placed], media: MediaSource, tally: Tally
) -> Sample | None:
    place, first = rows[0]
    video = open_video(media, names, (), place, tally, stated_size(first["w"], first["h"]))
    objects = VideoObjects(video, tally, place)
    for where, row in rows:
        label = " ".join(str(row["exp"] or "").split())
        for track in row["points"] if isinstance(row["points"], list) else [None]:
            track = track if isinstance(track, dict) else {}
            points = track.get("points")
            if not isinstance(points, list):
                objects.drop(label, "point", where, NOT_A_NUMBER)
                continue
            is_clip = video is not None and video.info.num_frames == len(points)
            offset = 0 if is_clip else _start(row)
            _add(points, str(track.get("object_id")), label, offset, where, objects)
    return objects.sample()


def _start(row: Row) -> int | None:
    return whole(str(row["start_frame"]))


def _add(
    points: Sequence[Any], id: str, label: str, offset: int | None, place: str, to: VideoObjects
) -> None:
    for number, xy in enumerate(points):
        where = f"{place}, object {id}, frame {number}"
        if xy is None or xy == []:
            to.skip(label, "point", where, ABSENT, absent=True)
            continue

        def make(_: SizeWH, xy: Any = xy) -> Point:
            return pixel_point(xy)

        to.add(label, "point", id, None if offset is None else offset + number, where, make)


def pixel_point(value: Any) -> Point:
    """Return the point in pixels of ``[x, y]``.

    Raises:
        DroppedRowError: the value is not a pair of numbers.
    """
    if not isinstance(value, list):
        raise DroppedRowError(NOT_A_NUMBER)
    x, y = floats(value, 2)
    return Point((x, y))


READER = Reader(
    read_molmo2_video_track,
    looks_like_molmo2_video_track,
    "**/*.[jpa][sar][or]*",
    "Molmo2-VideoTrack (JSON, JSONL, Parquet, Arrow)",
)
