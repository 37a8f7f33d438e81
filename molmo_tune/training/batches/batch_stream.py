"""Which items batch k of a run contains, without packing (`pack_stream` is the packed kind).

A pure function of the seed and k, so a resumed run skips what it has trained on by number, without
opening a file, and sees what the uninterrupted run would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from molmo_tune.encoding.sampler import ItemSampler, Mixture


class BatchStream(Sampler[list[int]]):
    """Batches of item numbers for a whole run; each process gets its own part.

    Items come in a new order every epoch, and epochs follow each other without a seam: a batch or
    an accumulation window can span two of them, so every optimizer step has the same number of
    sequences. To Lightning the run is one epoch of `num_batches` batches.

    Args:
        num_items: length of the dataset.
        batch_size: items per batch and process.
        num_batches: batches of the run per process.
        seed: together with the epoch it fixes the order.
        shuffle: if false, items come in file order.
        mixture: weights of the sources; None: every item comes once per epoch.
        first_batch: where to start, for resumed runs.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        num_batches: int,
        *,
        seed: int,
        shuffle: bool = True,
        mixture: Mixture | None = None,
        first_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._order = ItemSampler(num_items, seed=seed, shuffle=shuffle, mixture=mixture)
        self.batch_size, self.num_batches, self.first_batch = batch_size, num_batches, first_batch
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        """Batches of the whole run, wherever it starts."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.first_batch, self.num_batches):
            start = (number * self.world_size + self.rank) * self.batch_size
            places = range(start, start + self.batch_size)
            yield [self._order.item_at(place) for place in places]
