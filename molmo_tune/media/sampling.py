"""Sampling times of a video, by the two rules that the model was trained with.

`uniform_last_frame`, for everything but tracking. For duration D, at most n frames and at most f
frames per second:

    (n - 1) / f < D    n times evenly spaced from 0 to D, both ends included
    otherwise          0, 1/f, 2/f, … < D, and then D itself

`fps`, for tracking: integer rates that divide the video's own, so that sampled times fall on
labeled frames. Rates are tried in increasing order as long as n frames still span D, and the last
is used; the times are 0, 1/c, 2/c, … < D. A video too long for even the lowest rate is truncated
after n frames.

The model is given the *target* time together with the frame on screen at that time. The stock
processors follow other rules (`stock_sampling`), so they never sample. Source: Ai2's trainer;
verified against its recorded outputs in `tests/vectors`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

TRACKING_MAX_FPS = 10
"""Highest rate of tracking videos in Ai2's training, in frames per second."""

_INSIDE_S = 1e-6  # rounding errors do not select the frame before


def sample_times(duration_s: float, *, max_frames: int, max_fps: float) -> tuple[float, ...]:
    """Return the target times of `uniform_last_frame`, in seconds from the clip's start.

    Args:
        duration_s: from the start of the first frame to the end of the last.
        max_frames: maximum number of times; 1 returns the start only.
        max_fps: sampling rate of clips short enough for it, in frames per second.
    """
    if max_frames == 1:
        return (0.0,)
    if (max_frames - 1) / max_fps < duration_s:
        return tuple(np.linspace(0.0, duration_s, max_frames).tolist())
    return (*np.arange(0.0, duration_s, 1.0 / max_fps).tolist(), float(duration_s))


def candidate_rates(
    video_fps: float, base_fps: int = 1, max_fps: float = TRACKING_MAX_FPS
) -> tuple[int, ...]:
    """Return the candidate rates of `fps`: multiples of `base_fps` that divide the video's rate.

    Args:
        video_fps: the video's own rate; only its integer part counts (29 for 29.97).
        base_fps: lowest rate, and a divisor of all others (the rate of the answers).
        max_fps: maximum rate.

    Returns:
        Rates in frames per second, increasing.

    Raises:
        ValueError: `base_fps` does not divide the video's rate, or is above `max_fps`.
    """
    integer_fps = int(video_fps)
    if integer_fps < 1 or base_fps < 1 or integer_fps % base_fps:
        raise ValueError(f"{base_fps} fps does not divide the video's {video_fps:g} fps")
    rates = range(base_fps, min(integer_fps, int(max_fps)) + 1, base_fps)
    if not rates:
        raise ValueError(f"{base_fps} fps is above the maximum of {max_fps:g} fps")
    return tuple(rate for rate in rates if integer_fps % rate == 0)


def choose_rate(rates: Sequence[int], duration_s: float, max_frames: int) -> int:
    """Return the rate that `fps` samples a video at; `rates` from `candidate_rates`."""
    spanning = takewhile(lambda rate: max_frames / rate >= duration_s, rates[1:])
    return max(spanning, default=rates[0])


def sample_times_at(rate: int, duration_s: float, *, max_frames: int) -> tuple[float, ...]:
    """Return the target times of `fps` in seconds from the clip's start, increasing."""
    times = np.arange(max_frames) / rate
    return tuple(times[times < duration_s].tolist())


def frame_on_screen(starts_s: Sequence[float], time_s: float) -> int:
    """Return the 0-based index of the frame shown at a time.

    Args:
        starts_s: presentation times of all frames, increasing, in seconds from the first frame's.
        time_s: in seconds from the first frame's; clamped to the clip.
    """
    index = bisect_right(starts_s, time_s + _INSIDE_S) - 1
    return min(max(index, 0), len(starts_s) - 1)
