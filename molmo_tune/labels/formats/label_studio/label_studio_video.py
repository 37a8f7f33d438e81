"""Label Studio's ``videorectangle``: key frames of boxes in percent of the frame.

    {"type": "videorectangle", "value": {"labels": ["car"], "framesCount": 90, "sequence": [
        {"frame": 1,  "enabled": true,  "x": 10, "y": 20, "width": 5, "height": 5, "rotation": 0},
        {"frame": 30, "enabled": false, "x": 40, …}]}}

Coordinates: percent (0 to 100) of the video's width and height. Negative widths and heights exist;
    rotation is in degrees, clockwise, about the *top left* corner. Both are replaced by the
    bounding box, and counted as corrected.
Times: frames count from 1, so frame 1 is index 0. Times come from the video; the file's ``time`` is
    ignored, because it is one frame late and relies on the frame rate that the annotator's page
    assumed.
Objects: between key frames, the box moves linearly. ``enabled: false`` ends a segment *after* that
    frame. The last key frame, if enabled, holds until ``framesCount``. Regions of type
    ``timelinelabels`` become events (`formats.label_studio._timeline`).
Media: the video's name or URL; without one, the video named like the file or the only one there.
Skipped: cancelled annotations, and all but the first of several annotations of a task
    (`formats.label_studio._tasks`, also for the layouts of the file).
Dropped: other region types; second and further labels of a region.
Exhaustive labels: none.
Source: Label Studio's ``VideoRectangle`` documentation, its SDK's ``postprocessing/video.py`` (same
    frames) and its editor's ``isInLifespan``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.labels.formats.label_studio._tasks import Region, TaskAnnotation, read_annotations
from molmo_tune.labels.formats.label_studio._timeline import TIMELINE, timeline_spans
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Annotation, Box, Sample, Shape, Track
from molmo_tune.labels.tracks import (
    MISSING_VIDEO,
    NO_FRAME,
    NO_LABEL,
    NOT_A_NUMBER,
    ROTATED,
    Row,
    Values,
    numbers,
    observations,
    unique,
    upright_box,
)
from molmo_tune.labels.video_objects import closed_sample, open_video
from molmo_tune.media.video import VideoInfo

RECTANGLES = ("videorectangle", "videobbox")
NO_KEY_FRAMES = "region without key frames"
UNSUPPORTED = "unsupported region type"
SECOND_LABEL = "second class label of a region"
NEGATIVE_SIDE = "negative width or height made positive"
OTHER_LENGTH = "framesCount differs from the number of frames of the video"


def looks_like_label_studio_video(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    is_json = head.lstrip()[:1] in ("[", "{")
    return is_json and bool(
        re.search(r'"video(rectangle|bbox)"|"timelinelabels"|"sequence"\s*:\s*\[', head)
    )


def read_label_studio_video(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per annotated task, in file order.

    Args:
        path: the JSON file.
        media: the video or the folder of the videos. For a URL, its last part is looked up; without
            a name, the video named like the file, then the only one of the folder.
        tally: counts every key frame (kind ``box``), and regions of other types.

    Raises:
        UserError: the file is not in one of Label Studio's layouts, or a name points outside the
            media folder.
    """
    tasks = read_annotations(path, tally)
    media.check_single_file(len(tasks), path)
    samples = (_sample(task, path, media, tally) for task in tasks)
    return [sample for sample in samples if sample is not None]


def _sample(task: TaskAnnotation, path: Path, media: MediaSource, tally: Tally) -> Sample | None:
    video = open_video(media, task.names, (path.stem,), task.place, tally)
    if video is None:
        _drop_regions(task, tally)
        return None
    ids: dict[str, int] = {}
    kept: list[Annotation] = []
    for region in task.regions:
        if region.kind == TIMELINE:
            kept += timeline_spans(region, video.info, tally)
            continue
        track = _track(region, video.info, tally, ids)
        if track is not None and track.observations:
            kept.append(track)
    return closed_sample(video, tuple(kept), task.place, tally)


def _drop_regions(task: TaskAnnotation, tally: Tally) -> None:
    for region in task.regions:
        if region.kind == TIMELINE:
            timeline_spans(region, None, tally)
            continue
        counts = tally.of(_label(region), "box" if region.kind in RECTANGLES else region.kind)
        for _ in _sequence(region) or [None]:
            counts.read()
            counts.drop(MISSING_VIDEO, region.place)


def _track(region: Region, info: VideoInfo, tally: Tally, ids: dict[str, int]) -> Track | None:
    if region.kind not in RECTANGLES:
        counts = tally.of(_label(region), region.kind)
        counts.read()
        counts.drop(UNSUPPORTED, region.place)
        return None
    label, keys = _label(region), _sequence(region)
    for second in region.labels[1:]:
        counts = tally.of(second, "box")
        counts.read()
        counts.drop(SECOND_LABEL, region.place)
    if not keys:
        counts = tally.of(label, "box")
        counts.read()
        counts.drop(NO_KEY_FRAMES, region.place)
        return None
    rows = [row for key in keys if (row := _row(key, label, region.place, tally)) is not None]
    width, height = info.size_wh
    found = observations(
        rows,
        info,
        lambda values: _shape(values, width / 100, height / 100),
        lambda kind: tally.of(label, kind),
        hold_until=_last_frame(region, info, tally),
    )
    return Track(unique(region.id, ids), label, found)


def _label(region: Region) -> str:
    return region.labels[0] if region.labels else ""


def _sequence(region: Region) -> list[Any]:
    sequence = region.value.get("sequence")
    return sequence if isinstance(sequence, list) else []


def _last_frame(region: Region, info: VideoInfo, tally: Tally) -> int:
    """Return the index of the last frame up to which an enabled last key frame holds."""
    count = _integer(region.value.get("framesCount"))
    if count is None:
        return info.num_frames - 1
    if count != info.num_frames:
        tally.note(f"{OTHER_LENGTH} ({count}, video {info.num_frames})", region.place)
    return count - 1


def _row(key: object, label: str, place: str, tally: Tally) -> Row | None:
    """Return a key frame, without values if dropped; None if its frame is unknown."""
    counts = tally.of(label, "box")
    counts.read()
    key = key if isinstance(key, Mapping) else {}
    frame = _integer(key.get("frame"))
    if frame is None:
        counts.drop(NO_FRAME, place)
        return None
    place = f"{place}, frame {frame}"
    values = numbers(
        [key.get(n) for n in ("x", "y", "width", "height")] + [key.get("rotation") or 0]
    )
    if not label:
        counts.drop(NO_LABEL, place)
        values = None
    elif values is None:
        counts.drop(NOT_A_NUMBER, place)
    else:
        if values[2] < 0 or values[3] < 0:
            counts.correct(NEGATIVE_SIDE, place)
        if values[4] % 360:
            counts.correct(ROTATED, place)
    return Row(frame - 1, values, place, ends=not key.get("enabled", True))


def _shape(values: Values, percent_x: float, percent_y: float) -> Shape:
    """Return the box in pixels; rotation applies on the screen, so after the conversion."""
    x, y, width, height, degrees = values
    corner = (x * percent_x, y * percent_y)
    size = (width * percent_x, height * percent_y)
    box: Box = upright_box(corner, size, degrees, "corner")
    return box


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value and abs(value) < 1e15 and value == int(value) else None


READER = Reader(
    one_by_one(read_label_studio_video),
    looks_like_label_studio_video,
    "*.json",
    "Label Studio video (JSON with videorectangle)",
)
