"""molmo2-track-instruction of Ai2 and its sister datasets: one expression per row, at a low rate.

    {"id": "1", "video": "abc", "expression": "the left dog", "fps": 24, "sampling_fps": 2,
     "height": 360, "width": 640, "n_frames": 480, "frame_trajectories": [
        {"frame": 12, "time": 0.5, "points": [{"id": 0, "point": [10.5, 20], "occluded": false}]}]}

Points: pixels from 0. An object without a point in a labeled frame is absent there.
Frames: ``frame`` counts the video's frames from 0; ``time`` is ``frame / fps`` with a rounded
    ``fps``, and is not used.
Gaps: ``sampling_fps`` frames per second are labeled; between them, points move on a straight line
    (over at most 2 s) and count as interpolated.
Labels: the expression, with a track for each of its objects.
Hidden: points with ``occluded``.
Media: videos are named like ``video``; size and ``n_frames`` must match.
Exhaustive labels: none.
Source: Ai2's loader of ``allenai/molmo2-track-instruction``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from molmo_tune.labels.files.table_rows import Row
from molmo_tune.labels.files.text_rows import whole
from molmo_tune.labels.formats.ai2._molmo2_rows import Placed, rows_by_video
from molmo_tune.labels.formats.ai2.molmo2_video_track import pixel_point
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import stated_size
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Point, Sample
from molmo_tune.labels.tracks import NOT_A_NUMBER
from molmo_tune.labels.video_objects import VideoObjects, open_video

COLUMNS = ("video", "expression", "height", "width", "n_frames", "frame_trajectories")


def looks_like_track_instruction(head: str) -> bool:
    """Return whether the head of a file looks like JSON of this format."""
    return head.lstrip()[:1] in ("[", "{") and '"frame_trajectories"' in head


def read_track_instruction(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video, in order of first appearance.

    Raises:
        UserError: a file is not a table of this format, or a name points outside the media folder.
    """
    videos = rows_by_video(files, COLUMNS, ("video",))
    media.check_single_file(len(videos), files[0])
    found = (_sample(name, rows, media, tally) for (name,), rows in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(name: str, rows: Sequence[Placed], media: MediaSource, tally: Tally) -> Sample | None:
    place, first = rows[0]
    size = stated_size(first["width"], first["height"])
    video = open_video(media, (name,), (), place, tally, size, whole(str(first["n_frames"])))
    objects = VideoObjects(video, tally, place)
    labeled: set[int] = set()
    for where, row in rows:
        label = " ".join(str(row["expression"] or "").split())
        for frame, points in _labeled_frames(row):
            if frame is not None:
                labeled.add(frame)
            for point in points:
                _add(point, frame, label, f"{where}, frame {frame}", objects)
    return objects.sample(labeled_frames=labeled)


def _labeled_frames(row: Row) -> Iterator[tuple[int | None, list[Any]]]:
    entries = row["frame_trajectories"]
    for entry in entries if isinstance(entries, list) else [None]:
        entry = entry if isinstance(entry, dict) else {"points": None}
        points = entry.get("points")
        yield whole(str(entry.get("frame"))), points if isinstance(points, list) else [None]


def _add(value: Any, frame: int | None, label: str, place: str, objects: VideoObjects) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("id"), int | str):
        objects.drop(label, "point", place, NOT_A_NUMBER)
        return

    def make(_: SizeWH) -> Point:
        return pixel_point(value.get("point"))

    id, hidden = str(value["id"]), value.get("occluded") is True
    objects.add(label, "point", id, frame, f"{place}, object {id}", make, occluded=hidden)


READER = Reader(
    read_track_instruction,
    looks_like_track_instruction,
    "**/*.[jpa][sar][or]*",
    "molmo2-track-instruction (JSON, JSONL, Parquet, Arrow)",
)
