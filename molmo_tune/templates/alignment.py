"""Sampled times and the rate of a question: which times fall on its grid.

An answer at a rate of f per second names positions at 0, 1/f, 2/f, … seconds. The model was trained
on such answers only where it saw a frame at every step, so a question may state a rate only if the
sampled times cover its grid. Times within a hundredth of a second count as equal, as in the
training data. All times are seconds from the start of the clip.

`visible` decides what the sampled frames show, `molmo_tune.media` which frames are sampled, and
`molmo_tune.grounding.tracks` which of them an answer lists.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from molmo_tune.grounding.times import Time

TOLERANCE_S = 0.01


@dataclass(frozen=True, slots=True)
class InitialPoint:
    """Start of a single-point question: object id, time in seconds, position in pixels."""

    id: Hashable
    time_s: Time
    xy_px: tuple[float, float]


def grid_moments(times_s: Sequence[float], fps: int) -> dict[int, float]:
    """Return the sampled times on the grid of a rate, by their step of ``1 / fps`` seconds.

    Of two times at one step (the end of a clip just after a step), the first counts.
    """
    moments: dict[int, float] = {}
    for time_s in times_s:
        step = round(time_s * fps)
        if abs(time_s - step / fps) < TOLERANCE_S:
            moments.setdefault(step, time_s)
    return moments


def shows_rate(times_s: Sequence[float], fps: int) -> bool:
    """Return whether the sampled times cover every step of a rate, from 0 to the last time."""
    last = math.floor((times_s[-1] + TOLERANCE_S) * fps)
    return len(grid_moments(times_s, fps)) > last
