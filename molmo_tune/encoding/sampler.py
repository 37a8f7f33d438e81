"""The order in which items are drawn, pass after pass, as one endless stream.

Place p of the stream is item ``order(p // n)[p % n]`` of n: every pass holds every item once, in an
order of its own, and passes follow each other without a seam. A pure function of the seed and the
place, so a resumed run or another process finds the same item at the same place.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class ItemSampler:
    """Which item stands at which place of the stream.

    Args:
        num_items: length of the data set.
        seed: with the number of the pass it fixes the order.
        shuffle: otherwise items come in file order in every pass.
    """

    def __init__(self, num_items: int, *, seed: int, shuffle: bool = True) -> None:
        self.num_items, self.seed, self.shuffle = num_items, seed, shuffle
        self._order_of = lru_cache(maxsize=4)(self._order)

    def item_at(self, place: int) -> int:
        """Number of the item at a place."""
        pass_number, within = divmod(place, self.num_items)
        return int(self._order_of(pass_number)[within])

    def _order(self, pass_number: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(self.num_items)
        return np.random.default_rng([self.seed, pass_number]).permutation(self.num_items)
