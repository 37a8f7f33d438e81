"""Molmo2-VideoPoint of Ai2: the points of one label in one video per row, at moments of the video.

    {"video_id": "abc", "video_duration": 12.4, "clip_start": null, "clip_end": null,
     "label": "cats", "count": 2, "annotator_unsure": false,
     "two_fps_timestamps": [0.5, 3.0], "points": [[{"x": 50.1, "y": 20.3}], [{"x": 7, "y": 9}]]}

Points: percent of width and height. Each point is one object at one moment: a track with a single
    observation.
Times: seconds of the *complete* video, in steps of half a second; a point is on the frame that is
    on screen then.
Media: videos are named like ``video_id``. A video whose length differs from ``video_duration`` by
    more than a second is dropped.
Dropped: coordinates outside 0 to 100, rows with different numbers of points and times.
Exhaustive labels: labels whose row has as many points as its ``count``, unless the annotator was
    unsure or saw only a part of the video (``clip_start`` to ``clip_end``).
Source: Ai2's loader of ``allenai/Molmo2-VideoPoint``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molmo_tune.labels.files.table_rows import Row
from molmo_tune.labels.formats.ai2._molmo2_rows import Placed, rows_by_video
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import DroppedRowError, floats
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Point, Sample
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, open_video
from molmo_tune.media.sampling import frame_on_screen

COLUMNS = (
    *("video_id", "video_duration", "clip_start", "clip_end", "label", "count"),
    *("annotator_unsure", "points", "two_fps_timestamps"),
)
OTHER_DURATION = "the video's length differs from the labels"
OTHER_COUNT = "count and number of points differ: the label is not exhaustive"
PAST_100 = "a coordinate is outside 0 to 100%"
NOT_PAIRED = "the numbers of points and times differ"


def looks_like_molmo2_video_point(head: str) -> bool:
    """Return whether the head of a file looks like JSON of this format."""
    return head.lstrip()[:1] in ("[", "{") and '"two_fps_timestamps"' in head


def read_molmo2_video_point(
    files: Sequence[Path], media: MediaSource, tally: Tally
) -> list[Sample]:
    """Return one sample per video, in order of first appearance.

    Raises:
        UserError: a file is not a table of this format, or a name points outside the media folder.
    """
    videos = rows_by_video(files, COLUMNS, ("video_id",))
    media.check_single_file(len(videos), files[0])
    found = (_sample(name, rows, media, tally) for (name,), rows in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(name: str, rows: Sequence[Placed], media: MediaSource, tally: Tally) -> Sample | None:
    place = rows[0][0]
    video = _check_length(open_video(media, (name,), (), place, tally), rows[0][1], place, tally)
    objects = VideoObjects(video, tally, place)
    complete = [
        label
        for number, (where, row) in enumerate(rows)
        if (label := _add(row, number, where, video, objects, tally))
    ]
    return objects.sample(complete)


def _add(
    row: Row, number: int, place: str, video: OpenVideo | None, objects: VideoObjects, tally: Tally
) -> str:
    """Add the points of a row; return its label if that is exhaustive, else an empty string."""
    label = row["label"].strip() if isinstance(row["label"], str) else ""
    times, points = row["two_fps_timestamps"] or [], row["points"] or []
    if not isinstance(times, list) or not isinstance(points, list) or len(times) != len(points):
        objects.drop(label, "point", place, NOT_PAIRED)
        return ""
    pairs = [(t, p) for t, ps in zip(times, points, strict=True) for p in _as_list(ps)]
    for position, (time_s, point) in enumerate(pairs):
        frame, id = _frame(time_s, video), f"{number}-{position}"

        def make(size: SizeWH, point: Any = point) -> Point:
            return _point(point, size)

        objects.add(label, "point", id, frame, f"{place}, point {position}", make)
    if row["count"] != len(pairs):
        tally.note(OTHER_COUNT, place)
        return ""
    saw_all = video is not None and _saw_all(row, video.info.duration_s)
    return label if saw_all and row["annotator_unsure"] is False else ""


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _point(value: Any, size_wh: SizeWH) -> Point:
    pair = value if isinstance(value, dict) else {}
    x, y = floats([pair.get("x"), pair.get("y")])
    if not (0 <= x <= 100 and 0 <= y <= 100):
        raise DroppedRowError(PAST_100)
    return Point((x / 100 * size_wh[0], y / 100 * size_wh[1]))


def _frame(value: object, video: OpenVideo | None) -> int | None:
    """Return the frame on screen, or the number of frames for a time outside the video."""
    if video is None or type(value) not in (int, float):
        return None
    time_s = float(str(value))
    info = video.info
    is_inside = 0 <= time_s <= info.duration_s
    return frame_on_screen(info.starts_s, time_s) if is_inside else info.num_frames


def _saw_all(row: Row, duration_s: float) -> bool:
    start, end = row["clip_start"], row["clip_end"]
    if start is None and end is None:
        return True
    numbers = type(start) in (int, float) and type(end) in (int, float)
    return numbers and float(str(start)) <= 0 and float(str(end)) >= duration_s - 0.5


def _check_length(video: OpenVideo | None, row: Row, place: str, tally: Tally) -> OpenVideo | None:
    stated = row["video_duration"]
    if video is None or type(stated) not in (int, float):
        return video
    if abs(float(str(stated)) - video.info.duration_s) <= 1:
        return video
    own = video.info.duration_s
    tally.of("", "video").drop(f"{OTHER_DURATION} ({stated} s, not {own:g} s)", place)
    return None


READER = Reader(
    read_molmo2_video_point,
    looks_like_molmo2_video_point,
    "**/*.[jpa][sar][or]*",
    "Molmo2-VideoPoint (JSON, JSONL, Parquet, Arrow)",
)
