"""Which labeled frames go into an answer, given the frames the model sees.

A track answer may only name moments that the model saw: a labeled frame is used when a sampled
frame lies within a hundredth of a second, and for a per-frame answer when it also lies on the grid
of the asked rate. The *label's* time is printed, not the sampled one. Point labels of videos have a
grid of their own, two per second, and are not filtered. The rules are those of the training data;
sampling itself is `molmo_tune.media`'s, the further choice of frames (ends only, continuation)
`molmo_tune.grounding.tracks`'s. All times are seconds from the start of the clip.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from molmo_tune.errors import UserError
from molmo_tune.grounding.times import Time, read_time
from molmo_tune.grounding.tracks import TrackFrame

TOLERANCE_S = 0.01
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
    """Labeled frames within 0.01 s (exclusive) of a frame the model sees, in the order given.

    Raises:
        UserError: a frame's time is text that is no time.
    """
    sampled = sorted(float(time) for time in sampled_times_s)
    return [frame for frame in frames if _near_any(_seconds(frame.time_s), sampled)]


def frames_on_grid(frames: Sequence[TrackFrame], fps: float) -> list[TrackFrame]:
    """Labeled frames within 0.01 s (exclusive) of a multiple of ``1 / fps`` seconds.

    Args:
        frames: in time order, already those of the video: the grid runs from the first multiple at
            or after the first of them to the last of them.
        fps: rate the question asks for, in frames per second.

    Raises:
        UserError: the rate is not positive, or a frame's time is text that is no time.
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


@dataclass(frozen=True, slots=True)
class InitialPoint:
    """Where a single-point question starts: object, seconds, pixels."""

    id: Hashable
    time_s: Time
    xy_px: tuple[float, float]


def visible_points(frames: Sequence[TrackFrame], object_id: Hashable) -> list[InitialPoint]:
    """Every moment at which the object is visible, in the order given.

    The first is where single-point questions start; training draws another in a fifth of the
    examples. Look in the frames the model sees, and in all frames only when these have none.
    """
    return [
        InitialPoint(point.id, frame.time_s, point.xy_px)
        for frame in frames
        for point in frame.points
        if point.id == object_id and not point.occluded
    ]


def snap_point_time(time_s: float, clip_start_s: float = 0.0) -> float:
    """Time of a video *point* label: down to the half second, from the start of the clip."""
    return math.floor((time_s - clip_start_s) / POINT_GRID_S) * POINT_GRID_S


def grid_moments(times_s: Sequence[float], fps: int) -> dict[int, float]:
    """Sampled moments on the grid of an asked rate, by number of the step of ``1 / fps`` seconds.

    Of two moments at one step (a clip's end just after a step) the first counts.
    """
    moments: dict[int, float] = {}
    for time_s in times_s:
        step = round(time_s * fps)
        if abs(time_s - step / fps) < TOLERANCE_S:
            moments.setdefault(step, time_s)
    return moments


def shows_rate(times_s: Sequence[float], fps: int) -> bool:
    """Whether the sampled moments have every step of a rate, from 0 to the last of them."""
    last = math.floor((times_s[-1] + TOLERANCE_S) * fps)
    return len(grid_moments(times_s, fps)) > last
