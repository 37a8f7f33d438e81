"""Which moments of a video the model sees: the rule it was trained with (`uniform_last_frame`).

With a duration D, a cap of n frames and a rate of f frames per second:

    (n - 1) / f < D    n times evenly spaced from 0 to D, both ends included
    otherwise          0, 1/f, 2/f, … < D, and then D itself

The time given to the model is the *target* time; the picture is the one on screen then. The stock
video processor follows another rule (no last frame, times off the grid), so it is never asked to
sample. Source: Ai2's trainer; checked against its recorded outputs in `tests/vectors`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

_INSIDE_S = 1e-6  # a moment at the very end shows the last frame


def sample_times(duration_s: float, *, max_frames: int, max_fps: float) -> tuple[float, ...]:
    """Target times in seconds from the start of the clip, in increasing order.

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


def frame_on_screen(starts_s: Sequence[float], time_s: float) -> int:
    """Index of the frame that is shown at a time.

    Args:
        starts_s: presentation times of all frames, increasing, in seconds from the first frame's.
        time_s: clamped into the clip.
    """
    index = bisect_right(starts_s, time_s + _INSIDE_S) - 1
    return min(max(index, 0), len(starts_s) - 1)
