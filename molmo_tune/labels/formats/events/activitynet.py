"""ActivityNet JSON: events of videos in seconds, with or without ``database`` around them.

    {"database": {"bYUmtLBL7W4": {"duration": 224.5, "annotations": [
        {"segment": [11.5, 57.0], "label": "Wakeboarding"}]}}}

Times: seconds from the start of the video. Events are clipped at its end.
Media: videos are named like the keys, with or without ``v_``. A video whose length differs from
    ``duration`` by more than a second plus 5% of its length is another cut, and is dropped.
Refused: files of detections (``results``), which are a model's.
Exhaustive labels: none.
Source: activitynet/ActivityNet on GitHub.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.image_objects import DroppedRowError, floats
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, open_video

OTHER_DURATION = "the video's length differs from the labels"


def looks_like_activitynet(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return head.lstrip().startswith("{") and '"segment"' in head and '"annotations"' in head


def read_activitynet(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video, in file order.

    Raises:
        UserError: the file is not JSON of this format, or a name points outside the media folder.
    """
    data = read_json(path)
    if isinstance(data, dict) and "results" in data:
        raise UserError(path, "a model's detections (results)", "annotations")
    videos = data.get("database", data) if isinstance(data, dict) else None
    if not isinstance(videos, dict) or not all(isinstance(v, dict) for v in videos.values()):
        raise UserError(path, "not an object of videos", "ActivityNet JSON")
    media.check_single_file(len(videos), path)
    found = (_sample(name, entry, path, media, tally) for name, entry in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(
    name: str, entry: Mapping[str, Any], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    place, rows = f"{path}: video {name}", entry.get("annotations", [])
    if not isinstance(rows, list):
        raise UserError(place, "annotations is not a list", "a list of segments")
    id = name.removeprefix("v_")
    video = open_video(media, (name, id, f"v_{id}"), (), place, tally)
    video = _check_length(video, entry, place, tally)
    objects = VideoObjects(video, tally, place)
    for number, row in enumerate(rows, 1):
        row = row if isinstance(row, dict) else {}
        start, end = _segment(row.get("segment"))
        objects.span(str(row.get("label") or ""), start, end, f"{place}, annotation {number}")
    return objects.sample()


def _segment(value: object) -> tuple[float | None, float | None]:
    try:
        start, end = floats(value, 2)
    except DroppedRowError:
        return None, None
    return start, end


def _check_length(
    video: OpenVideo | None, entry: Mapping[str, Any], place: str, tally: Tally
) -> OpenVideo | None:
    stated = entry.get("duration", entry.get("duration_second"))
    if video is None or type(stated) not in (int, float):
        return video
    own = video.info.duration_s
    if abs(stated - own) <= 1 + 0.05 * own:
        return video
    tally.of("", "video").drop(f"{OTHER_DURATION} ({stated:g} s, not {own:g} s)", place)
    return None


READER = Reader(
    one_by_one(read_activitynet),
    looks_like_activitynet,
    "*.json",
    "ActivityNet JSON (annotations with segment)",
)
