"""The order in which items are sampled, epoch after epoch, as one endless stream.

An epoch has as many places as the dataset has items. Without weights, each epoch holds every item
once, in an order of its own: place p of the stream is item ``order(p // n)[p % n]`` of n.

With weights (`Mixture`), the places of an epoch are divided among the sources in proportion to
their weights, whatever the sources' sizes. Each source fills its places from an endless stream of
its own, which again holds every item of the source once before any of them returns:

    source   items   weight   places of an epoch of 6    each item comes
    A        2       3        4 or 5                     2.25 times per epoch
    B        4       1        1 or 2                     0.375 times per epoch

Either way the item at a place is a pure function of the seed and the place, so a resumed run or
another process finds the same item there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_SOURCE_STREAM = 1  # keeps the random numbers of sources apart from those of epochs


@dataclass(frozen=True, slots=True)
class Mixture:
    """How the places of the stream divide among several sources.

    Args:
        counts: number of items of each source, all positive; items are numbered source by source.
        weights: relative frequency of each source, all positive.
    """

    counts: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def shares(self) -> list[float]:
        """Fraction of the samples that come from each source; the sum is 1."""
        return [float(share) for share in self._exact_shares()]

    @property
    def repeats(self) -> list[float]:
        """How often each item of a source comes per epoch, on average."""
        total = sum(self.counts)
        return [
            share * total / count for share, count in zip(self.shares, self.counts, strict=True)
        ]

    def divide(self, num_places: int) -> list[int]:
        """Divide the first places of the stream: how many of them belong to each source.

        The numbers add up exactly, never decrease as `num_places` grows, and stay within two
        places of the exact shares, however long the stream. Heavy sources choose first: each takes
        its rounded part of the places that are still free.
        """
        shares = self._exact_shares()
        numbers = [0] * len(shares)
        places, free = num_places, Fraction(1)
        for source in sorted(range(len(shares)), key=lambda source: -shares[source]):
            numbers[source] = math.floor(places * shares[source] / free + Fraction(1, 2))
            places -= numbers[source]
            free -= shares[source]
        return numbers

    def _exact_shares(self) -> list[Fraction]:
        weights = [Fraction(weight) for weight in self.weights]
        return [weight / sum(weights) for weight in weights]


class ItemSampler:
    """Finds the item at a place of the stream.

    Args:
        num_items: length of the dataset.
        seed: determines the order, together with the number of the epoch.
        shuffle: whether to shuffle; otherwise items come in file order in every epoch.
        mixture: weights of the sources; None: every item comes once per epoch.
    """

    def __init__(
        self, num_items: int, *, seed: int, shuffle: bool = True, mixture: Mixture | None = None
    ) -> None:
        if mixture is not None and sum(mixture.counts) != num_items:
            raise ValueError(f"{sum(mixture.counts)} items in the sources of {num_items}")
        self.num_items, self.seed, self.shuffle, self.mixture = num_items, seed, shuffle, mixture
        self._order_of = lru_cache(maxsize=4)(self._order)

    def item_at(self, place: int) -> int:
        """Return the number of the item at a place."""
        epoch, within = divmod(place, self.num_items)
        return int(self._order_of(epoch)[within])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self.mixture is None:
            return self._permutation(self.num_items, epoch)
        drawn = _drawn_per_source(self.mixture, epoch)
        items = np.concatenate([self._from_source(source, *span) for source, span in drawn])
        return items[self._permutation(self.num_items, epoch)]

    def _from_source(self, source: int, start: int, end: int) -> NDArray[np.int64]:
        """Items ``start`` to ``end`` (exclusive) of a source's own endless stream."""
        assert self.mixture is not None
        count, first_item = self.mixture.counts[source], sum(self.mixture.counts[:source])
        first_cycle, last_cycle = start // count, max(start, end - 1) // count
        cycles = [
            self._permutation(count, source, cycle, _SOURCE_STREAM)
            for cycle in range(first_cycle, last_cycle + 1)
        ]
        skipped = first_cycle * count
        return first_item + np.concatenate(cycles)[start - skipped : end - skipped]

    def _permutation(self, length: int, *key: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(length)
        return np.random.default_rng([self.seed, *key]).permutation(length)


def _drawn_per_source(mixture: Mixture, epoch: int) -> Sequence[tuple[int, tuple[int, int]]]:
    """For each source the part of its own stream that an epoch takes, as start and end."""
    length = sum(mixture.counts)
    before, after = mixture.divide(epoch * length), mixture.divide((epoch + 1) * length)
    return list(enumerate(zip(before, after, strict=True)))
