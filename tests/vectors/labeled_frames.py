"""The reference's choice of labeled frames for a track answer.

The reference starts from labels: it keeps a labeled frame within 0.01 s of a sampled one and, for
an answer at a rate, within 0.01 s of the rate's grid, and writes the *label's* time. Training
starts from the sampled times instead (`molmo_tune.templates.visible` and `alignment`), because most
label formats name frames rather than times, and writes the *sampled* time. On the records both give
the same answers (`test_templates`).

The reference also rounds the time of a video *point* label down to the half second; training writes
the first sampled time that shows the object. All times are seconds from the start of the clip.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence

from molmo_tune.errors import UserError
from molmo_tune.grounding.times import Time, read_time
from molmo_tune.grounding.tracks import TrackFrame
from molmo_tune.templates.alignment import TOLERANCE_S, InitialPoint

POINT_GRID_S = 0.5


def _seconds(time_s: Time) -> float:
    value = read_time(time_s)
    if isinstance(value, str):
        raise UserError("time", repr(time_s), "seconds, MM:SS.ff or HH:MM:SS.ff")
    return float(value)


def _near_any(time_s: float, sorted_times_s: Sequence[float]) -> bool:
    after = bisect_left(sorted_times_s, time_s)
    around = sorted_times_s[max(0, after - 1) : after + 1]
    return any(abs(time_s - other) < TOLERANCE_S for other in around)


def frames_in_video(
    frames: Sequence[TrackFrame], sampled_times_s: Sequence[float]
) -> list[TrackFrame]:
    """Return the labeled frames within 0.01 s (exclusive) of a sampled frame, in the given order.

    Raises:
        UserError: a frame's time is text and not a time.
    """
    sampled = sorted(float(time) for time in sampled_times_s)
    return [frame for frame in frames if _near_any(_seconds(frame.time_s), sampled)]


def frames_on_grid(frames: Sequence[TrackFrame], fps: float) -> list[TrackFrame]:
    """Return the labeled frames within 0.01 s (exclusive) of a multiple of ``1 / fps`` seconds.

    Args:
        frames: those from `frames_in_video`, in time order. The grid runs from the first multiple
            at or after the first frame to the last frame.
        fps: rate of the question, in frames per second.

    Raises:
        UserError: the rate is not positive, or a frame's time is text and not a time.
    """
    if not fps > 0:
        raise UserError("fps", f"{fps}", "a positive number of frames per second")
    if not frames:
        return []
    slack = 1e-6  # a grid time may miss its frame's time by float error, at either end
    first = math.ceil(_seconds(frames[0].time_s) * fps - slack)
    last = math.floor((_seconds(frames[-1].time_s) + slack) * fps)
    grid = [step / fps for step in range(first, last + 1)]
    return [frame for frame in frames if _near_any(_seconds(frame.time_s), grid)]


def visible_points(frames: Sequence[TrackFrame], object_id: Hashable) -> list[InitialPoint]:
    """Return every moment at which the object is visible, in the given order."""
    return [
        InitialPoint(point.id, frame.time_s, point.xy_px)
        for frame in frames
        for point in frame.points
        if point.id == object_id and not point.occluded
    ]


def snap_point_time(time_s: float, clip_start_s: float = 0.0) -> float:
    """Return the time of a video point label: down to the half second, from the clip's start."""
    return math.floor((time_s - clip_start_s) / POINT_GRID_S) * POINT_GRID_S
