"""Which moments of a video the model sees: the two rules it was trained with.

`uniform_last_frame`, for everything but tracking. With a duration D, a cap of n frames and a rate
of f frames per second:

    (n - 1) / f < D    n times evenly spaced from 0 to D, both ends included
    otherwise          0, 1/f, 2/f, … < D, and then D itself

`fps`, for tracking: whole rates that divide the video's own, so that sampled times fall on labeled
frames. The highest candidate is taken that is reached by going up while n frames still span D; the
times are 0, 1/c, 2/c, … < D. A video too long for even the lowest is cut after n frames.

The time given to the model is the *target* time; the picture is the one on screen then. The stock
processors follow other rules (`stock_sampling`), so they are never asked to sample. Source: Ai2's
trainer; checked against its recorded outputs in `tests/vectors`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

TRACKING_MAX_FPS = 10
"""Highest rate that tracking videos were shown at."""

_INSIDE_S = 1e-6  # a moment at the very end shows the last frame


def sample_times(duration_s: float, *, max_frames: int, max_fps: float) -> tuple[float, ...]:
    """Target times of `uniform_last_frame`, in seconds from the start of the clip, increasing.

    Args:
        duration_s: length of the clip, from the start of its first to the end of its last frame.
        max_frames: at most so many times; 1 gives the start only.
        max_fps: rate on clips short enough for it.
    """
    if max_frames == 1:
        return (0.0,)
    if (max_frames - 1) / max_fps < duration_s:
        return tuple(np.linspace(0.0, duration_s, max_frames).tolist())
    return (*np.arange(0.0, duration_s, 1.0 / max_fps).tolist(), float(duration_s))


def candidate_rates(
    video_fps: float, base_fps: int = 1, max_fps: float = TRACKING_MAX_FPS
) -> tuple[int, ...]:
    """Rates that `fps` chooses among, increasing: multiples of `base_fps` that divide the video's.

    Args:
        video_fps: the video's own rate; only its whole part counts (29 for 29.97).
        base_fps: the lowest rate, and a divisor of all others (the rate of the answers).
        max_fps: no rate above it.

    Raises:
        ValueError: no rate is possible, because `base_fps` does not divide the video's rate or is
        above `max_fps`.
    """
    whole_fps = int(video_fps)
    if whole_fps < 1 or base_fps < 1 or whole_fps % base_fps:
        raise ValueError(f"{base_fps} frames per second do not divide the video's {video_fps:g}")
    rates = range(base_fps, min(whole_fps, int(max_fps)) + 1, base_fps)
    if not rates:
        raise ValueError(f"{base_fps} frames per second are more than the {max_fps:g} allowed")
    return tuple(rate for rate in rates if whole_fps % rate == 0)


def choose_rate(rates: Sequence[int], duration_s: float, max_frames: int) -> int:
    """The rate that `fps` shows a video at; `rates` as from `candidate_rates`."""
    spanning = takewhile(lambda rate: max_frames / rate >= duration_s, rates[1:])
    return max(spanning, default=rates[0])


def sample_times_at(rate: int, duration_s: float, *, max_frames: int) -> tuple[float, ...]:
    """Target times of `fps` in seconds from the start of the clip."""
    times = np.arange(max_frames) / rate
    return tuple(times[times < duration_s].tolist())


def frame_on_screen(starts_s: Sequence[float], time_s: float) -> int:
    """Index of the frame that is shown at a time.

    Args:
        starts_s: presentation times of all frames, increasing, in seconds from the first frame's.
        time_s: clamped into the clip.
    """
    index = bisect_right(starts_s, time_s + _INSIDE_S) - 1
    return min(max(index, 0), len(starts_s) - 1)
