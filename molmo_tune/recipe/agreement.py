"""Rules that concern two keys of a recipe: settings that are sound alone but not together.

Each would otherwise pass silently: a rate for a part that is frozen, an evaluation that never
comes. The loader also runs these rules over what is left of a faulty recipe, so every value that a
rule reads is named in `Contradiction.keys`; a rule that read a faulty value is then not reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from molmo_tune.recipe.faults import KeyPath

if TYPE_CHECKING:
    from molmo_tune.recipe.sections import Recipe


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two or more settings that exclude each other; the first key is the one to look at."""

    keys: tuple[KeyPath, ...]
    reason: str

    @property
    def key(self) -> KeyPath:
        """The key that the fault is reported at."""
        return self.keys[0]


def contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    """All pairs of settings in ``recipe`` that cannot both be meant."""
    yield from _warmup_ends(recipe)
    yield from _rates_are_used(recipe)
    yield from _evaluation_happens(recipe)


def _warmup_ends(recipe: Recipe) -> Iterator[Contradiction]:
    optim, max_steps = recipe.optim, recipe.trainer.max_steps
    warmup = optim.warmup_steps or 0
    if optim.schedule != "constant" and warmup >= max_steps:
        yield Contradiction(
            (("optim", "warmup_steps"), ("optim", "schedule"), ("trainer", "max_steps")),
            f"must be less than trainer.max_steps, which is {max_steps}, "
            f"not {optim.warmup_steps}: the learning rate would never reach its peak",
        )


def _rates_are_used(recipe: Recipe) -> Iterator[Contradiction]:
    rates = {"connector": recipe.optim.lr_connector, "vision": recipe.optim.lr_vision}
    for part, rate in rates.items():
        if rate is not None and part not in recipe.adapter.targets:
            yield Contradiction(
                (("optim", f"lr_{part}"), ("adapter", "targets")),
                f"has no effect, because adapter.targets does not name {part}; "
                "name it there or leave this rate out",
            )


def _evaluation_happens(recipe: Recipe) -> Iterator[Contradiction]:
    every, max_steps = recipe.eval.every_steps, recipe.trainer.max_steps
    key = ("eval", "every_steps")
    if every is None:
        return
    if every > max_steps:
        yield Contradiction(
            (key, ("trainer", "max_steps")),
            f"must be at most trainer.max_steps, which is {max_steps}, "
            f"not {every}: no evaluation would take place",
        )
    if not recipe.data.val:
        yield Contradiction(
            (key, ("data", "val")),
            "needs something to evaluate on, and data.val is empty; "
            "fill data.val or leave every_steps out",
        )
