"""The `LightningDataModule`: items to batches, in an order that can be resumed.

The order of an epoch is a pure function of the seed and the epoch's number, and the position within
it is that of the trainer's own batch counter. A resumed run therefore skips what was trained by
number, without opening a file, and sees exactly what the uninterrupted run would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Sampler

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import TrainingSet


class EpochBatches(Sampler[list[int]]):
    """Batches of item numbers, shuffled per epoch, each process its share.

    Every process gets the same number of batches; the few items left over at the end of an epoch
    come at other places in the next one.

    Args:
        num_items: length of the data set.
        batch_size: items per batch and process.
        seed: with the epoch it fixes the order.
        shuffle: otherwise items come in file order.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_items, self.batch_size = num_items, batch_size
        self.seed, self.shuffle = seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_batch = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        if epoch != self.epoch:
            self.first_batch = 0
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever it is entered."""
        return max(1, self.num_items // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for number in range(self.first_batch, len(self)):
            start = (number * self.world_size + self.rank) * self.batch_size
            places = np.arange(start, start + self.batch_size) % self.num_items
            yield order[places].tolist()

    def _order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        if not self.shuffle:
            return np.arange(self.num_items)
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items)


class MolmoDataModule(L.LightningDataModule):
    """Batches of encoded samples.

    Args:
        train: items to train on.
        val: items whose loss is watched, or none.
        pad_id: token that fills short rows.
        batch_size: items per batch.
        num_workers: loader processes; they are spawned, because video readers do not survive a fork.
        seed: fixes the order.
        shuffle: whether the order changes per epoch.
    """

    def __init__(
        self,
        train: TrainingSet,
        val: TrainingSet | None,
        *,
        pad_id: int,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.pad_id, self.batch_size = pad_id, batch_size
        self.num_workers, self.seed, self.shuffle = num_workers, seed, shuffle
        self._position: tuple[int, int] = (0, 0)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from where the run is."""
        rank, world = self._place()
        batches = EpochBatches(
            len(self.train),
            self.batch_size,
            seed=self.seed,
            shuffle=self.shuffle,
            rank=rank,
            world_size=world,
        )
        batches.epoch, batches.first_batch = self._position
        return self._loader(self.train, batches)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Validation batches in file order; an empty list when there is no validation set."""
        if self.val is None:
            return []
        rank, world = self._place()
        batches = EpochBatches(
            len(self.val), self.batch_size, seed=0, shuffle=False, rank=rank, world_size=world
        )
        return self._loader(self.val, batches)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and the number of its batches that are done."""
        if self.trainer is None:
            return {}
        loop = self.trainer.fit_loop
        done = loop.epoch_loop.batch_progress.current.completed
        return {"epoch": self.trainer.current_epoch, "batches_done": done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue behind the batches that are done."""
        self._position = (state_dict["epoch"], state_dict["batches_done"])

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _loader(self, dataset: TrainingSet, batches: EpochBatches) -> DataLoader[Any]:
        workers = self.num_workers
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=partial(collate, pad_id=self.pad_id),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )
