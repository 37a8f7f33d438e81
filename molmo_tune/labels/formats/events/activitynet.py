"""ActivityNet JSON: events of videos in seconds, with or without ``database`` around them.

    {"database": {"bYUmtLBL7W4": {"duration": 224.5, "annotations": [
        {"segment": [11.5, 57.0], "label": "Wakeboarding"}]}}}

A video is looked up by its key, with and without ``v_``. If its length differs from ``duration`` by
more than a second and a twentieth, it is another cut and is dropped. Events are cut at its end.
Files of detections (``results``) are refused: they are a model's. No label is exhaustive.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.image_objects import LostError, floats
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, open_video

OTHER_DURATION = "the video is longer or shorter than the labels say"


def looks_like_activitynet(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return head.lstrip().startswith("{") and '"segment"' in head and '"annotations"' in head


def read_activitynet(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per video, in file order.

    Raises:
        UserError: the file is not such JSON, or a name climbs out of the media folder.
    """
    data = read_json(path)
    if isinstance(data, dict) and "results" in data:
        raise UserError(path, "detections of a model (results)", "a database of annotations")
    videos = data.get("database", data) if isinstance(data, dict) else None
    if not isinstance(videos, dict) or not all(isinstance(v, dict) for v in videos.values()):
        raise UserError(path, "no object of videos", "ActivityNet JSON")
    media.check_number(len(videos), path)
    found = (_sample(name, entry, path, media, tally) for name, entry in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(
    name: str, entry: Mapping[str, Any], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    place, rows = f"{path}: video {name}", entry.get("annotations", [])
    if not isinstance(rows, list):
        raise UserError(place, "annotations is no list", "a list of segments")
    plain = name.removeprefix("v_")
    video = open_video(media, (name, plain, f"v_{plain}"), (), place, tally)
    video = _same_length(video, entry, place, tally)
    objects = VideoObjects(video, tally, place)
    for number, row in enumerate(rows, 1):
        row = row if isinstance(row, dict) else {}
        start, end = _segment(row.get("segment"))
        objects.span(str(row.get("label") or ""), start, end, f"{place}, annotation {number}")
    return objects.sample()


def _segment(value: object) -> tuple[float | None, float | None]:
    try:
        start, end = floats(value, 2)
    except LostError:
        return None, None
    return start, end


def _same_length(
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
