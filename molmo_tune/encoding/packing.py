"""Packs: several samples in one row, so that almost nothing of a row is padding.

    tokens     a a a a a a b b b c c c c c …      16384
    example    0 0 0 0 0 0 1 1 1 2 2 2 2 2
    position   0 1 2 3 2 3 0 1 2 0 1 2 3 4        each example starts at 0
    branch     0 0 1 1 2 2 0 0 0 0 0 0 0 0        trees stay trees

No token attends to another example (`molmo_tune.model.attention_rule`) and every target keeps its
weight, so a pack has the same loss and gradient as its samples in rows of their own.

A row has two capacities: tokens, and crops and frames, which cost memory in the vision tower. Packs
are *planned from sizes*, which are known before anything is decoded. Samples wait in a pool; when
it is full, the next pack takes the sample that has waited longest, and the most valuable others
that fit (a knapsack with two capacities). A plan depends only on the order of arrival, and its
state is a few numbers. Released limits: pool 48, 16384 tokens, 128 crops and frames; one crop is
worth 30 tokens.

In the released trainer the knapsack chooses alone. Then samples of awkward sizes wait forever and
clog the pool: on a mixture like the released one, the oldest had waited for 98% of the stream, and
rows were 97.2% full; here they are 99.4% full (`tests/benchmarks/packing.py`). Here no sample waits
for more packs than the pool has places.

Limitations: neither decides the order of arrival (`sampler`) nor opens media.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from molmo_tune.encoding.collation import join_features, join_vision
from molmo_tune.encoding.encoded import EncodedSample

POOL_SIZE = 48
CROP_VALUE = 30
TOKEN_LEVELS = 512


class Size(NamedTuple):
    """Size of a sample. ``num_crops`` counts crops of images and frames of videos."""

    num_tokens: int
    num_crops: int


def knapsack(
    sizes: Sequence[Size], limits: Size, *, token_value: int = 1, crop_value: int = CROP_VALUE
) -> list[int]:
    """Return the most valuable set of samples that fits a row, as numbers in decreasing order.

    Tokens count in steps of a 512th of the row, rounded up. Among equally valuable sets, the one
    without the last samples wins.
    """
    step = max(1, limits.num_tokens // TOKEN_LEVELS)
    tokens = [-(-size.num_tokens // step) for size in sizes]
    num_levels = limits.num_tokens // step
    best = np.zeros((num_levels + 1, limits.num_crops + 1), np.int64)  # value by free space
    taken: list[NDArray[np.bool_]] = []
    for used, size in zip(tokens, sizes, strict=True):
        value = token_value * size.num_tokens + crop_value * size.num_crops
        taken.append(_take(best, used, size.num_crops, value))
    chosen = []
    free_tokens, free_crops = num_levels, limits.num_crops
    for number in reversed(range(len(sizes))):
        if taken[number][free_tokens, free_crops]:
            chosen.append(number)
            free_tokens -= tokens[number]
            free_crops -= sizes[number].num_crops
    return chosen


def _take(best: NDArray[np.int64], tokens: int, crops: int, value: int) -> NDArray[np.bool_]:
    """Offer one more sample to every free space in `best`; return where it is taken."""
    taken = np.zeros(best.shape, np.bool_)
    if tokens >= best.shape[0] or crops >= best.shape[1]:
        return taken
    with_it = best[: best.shape[0] - tokens, : best.shape[1] - crops] + value
    without = best[tokens:, crops:]
    np.greater(with_it, without, out=taken[tokens:, crops:])
    np.maximum(without, with_it, out=without)
    return taken


@dataclass(frozen=True, slots=True)
class PackerState:
    """State of a plan: the stream places of waiting samples, and the next place to come."""

    next_place: int = 0
    waiting: tuple[int, ...] = ()


class Packer:
    """Plans packs over an endless stream of samples.

    Args:
        size_at: returns the size of the sample at a place of the stream.
        limits: of a row. A sample that fills it, or exceeds it, gets a row of its own.
        pool_size: number of waiting samples to choose from.
        state: where to resume.
    """

    def __init__(
        self,
        size_at: Callable[[int], Size],
        limits: Size,
        pool_size: int = POOL_SIZE,
        state: PackerState | None = None,
    ) -> None:
        self._size_at, self._limits, self._pool_size = size_at, limits, pool_size
        state = state or PackerState()
        self._next_place = state.next_place
        self._waiting = [(place, size_at(place)) for place in state.waiting]

    @property
    def state(self) -> PackerState:
        """State between two packs."""
        return PackerState(self._next_place, tuple(place for place, _ in self._waiting))

    def next_pack(self) -> tuple[int, ...]:
        """Return the places of the samples that share the next row."""
        while True:
            place = self._next_place
            self._next_place += 1
            size = self._size_at(place)
            if self._fills_a_row(size):
                return (place,)
            if len(self._waiting) < self._pool_size:
                self._waiting.append((place, size))
                continue
            pack = self._choose()
            self._waiting.append((place, size))
            return pack

    def _fills_a_row(self, size: Size) -> bool:
        step = max(1, self._limits.num_tokens // TOKEN_LEVELS)
        fills = -(-size.num_tokens // step) >= self._limits.num_tokens // step
        return fills or size.num_crops > self._limits.num_crops

    def _choose(self) -> tuple[int, ...]:
        (_, oldest), *others = self._waiting
        free = Size(
            self._limits.num_tokens - oldest.num_tokens, self._limits.num_crops - oldest.num_crops
        )
        added = knapsack([size for _, size in others], free)
        numbers = [*(number + 1 for number in added), 0]
        pack = tuple(self._waiting[number][0] for number in numbers)
        for number in numbers:  # decreasing, so that the remaining numbers stay valid
            del self._waiting[number]
        return pack


def pack(samples: Sequence[EncodedSample]) -> EncodedSample:
    """Join samples into one row, in the given order; unreadable ones leave only their opening."""
    openings = tuple(opening for sample in samples for opening in sample.openings)
    samples = [sample for sample in samples if not sample.is_quarantined] or samples[:1]
    patches, pooling = join_vision(samples)
    lengths = [sample.num_tokens for sample in samples]
    return EncodedSample(
        sample_id=" ".join(sample.sample_id for sample in samples),
        input_ids=np.concatenate([sample.input_ids for sample in samples]),
        target_ids=np.concatenate([sample.target_ids for sample in samples]),
        loss_weights=np.concatenate([sample.loss_weights for sample in samples]),
        position_ids=np.concatenate([sample.position_ids for sample in samples]),
        branch_ids=np.concatenate([sample.branch_ids for sample in samples]),
        example_ids=np.repeat(np.arange(len(samples)), lengths),
        is_vision=np.concatenate([sample.is_vision for sample in samples]),
        patches=patches,
        pooling=pooling,
        openings=openings,
        pieces=tuple(piece for sample in samples for piece in sample.pieces),
        features=join_features(samples),
    )
