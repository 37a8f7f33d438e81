"""The learning rate of each optimizer step, as a factor on the peak rate.

A linear warmup to the peak, then a decay from 1 to `min_lr_ratio` whose form has a name. To add a
schedule, add its form to `DECAYS` and its name to `optim.schedule` in `molmo_tune.recipe.sections`;
a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}
"""Height of the decay, 1 to 0, by its progress, 0 to 1."""


class ScheduleSettings(Protocol):
    """Fields of `OptimSettings` that a schedule reads."""

    @property
    def schedule(self) -> str:
        """Name of the decay."""

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the run."""

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of the warmup."""

    @property
    def min_lr_ratio(self) -> float:
        """Factor at `max_steps`."""


def lr_factor(settings: ScheduleSettings, step: int) -> float:
    """Return the factor on the peak learning rate at optimizer step `step`, which counts from 0.

    The first of `warmup_steps` warmup steps has the factor 1/warmup_steps, the last one 1.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    span = max(1, settings.max_steps - settings.warmup_steps)
    progress = min(1.0, (step - settings.warmup_steps) / span)
    height = DECAYS[settings.schedule](progress)
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * height
