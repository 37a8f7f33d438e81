"""The `LightningDataModule`: items to batches, in an order that can be resumed.

Which items batch k holds is a pure function of the seed and k, and k follows from the number of
finished optimizer steps. A resumed run therefore skips what was trained by number, without opening
a file, and sees exactly what the uninterrupted run would have seen. With packing the rows of a
batch hold several items each (`pack_stream`); the checkpoint then keeps the packer's place, too, so
that a long run need not be planned again from its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import PackedSet, TrainingSet
from molmo_tune.encoding.encoded import Batch, EncodedSample
from molmo_tune.encoding.pack_plan import sizes_of
from molmo_tune.encoding.packing import PackerState, Size
from molmo_tune.encoding.sampler import ItemSampler, Mixture
from molmo_tune.training.data_wait import TimedLoader
from molmo_tune.training.pack_stream import PackStream


class BatchStream(Sampler[list[int]]):
    """Batches of item numbers for a whole run, each process its share.

    Items come in a new order every pass, and passes follow each other without a seam: a batch or an
    accumulation window may span two of them, so every optimizer step sees equally many sequences.
    To Lightning the run is one epoch of `num_batches` batches.

    Args:
        num_items: length of the data set.
        batch_size: items per batch and process.
        num_batches: batches of the whole run per process.
        seed: with the number of the pass it fixes the order.
        shuffle: otherwise items come in file order.
        mixture: weights of the sources; None: every item comes once per epoch.
        first_batch: where to begin, for resumed runs.
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
        """Batches of the whole run, wherever it is entered."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.first_batch, self.num_batches):
            start = (number * self.world_size + self.rank) * self.batch_size
            places = range(start, start + self.batch_size)
            yield [self._order.item_at(place) for place in places]


class MolmoDataModule(L.LightningDataModule):
    """Batches of encoded samples.

    Args:
        train: items to train on.
        val: items whose loss is watched, or none.
        pad_id: token that fills short rows.
        num_batches: batches of the whole run (optimizer steps times accumulation).
        batch_size: items per batch.
        num_workers: loader processes; they are spawned, because video readers do not survive a
        fork.
        prefetch: batches that each of them holds ready.
        seed: fixes the order.
        shuffle: whether the order changes per epoch.
        mixture: weights of the sources; None: every item comes once per epoch.
        pack_limits: tokens and crops of a row that holds several items; None: one item per row.
        join: makes a batch of samples to train on.
    """

    def __init__(
        self,
        train: TrainingSet,
        val: TrainingSet | None,
        *,
        pad_id: int,
        num_batches: int,
        batch_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        seed: int = 0,
        shuffle: bool = True,
        mixture: Mixture | None = None,
        pack_limits: Size | None = None,
        join: Callable[..., Batch] = collate,
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.pad_id, self.num_batches, self.batch_size = pad_id, num_batches, batch_size
        self.num_workers, self.prefetch = num_workers, prefetch
        self.seed, self.shuffle, self.mixture = seed, shuffle, mixture
        self.pack_limits, self.join = pack_limits, join
        self._batches_done = 0
        self._packer_state: PackerState | None = None
        self._packs: PackStream | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the whole run, from where it is."""
        if self.pack_limits is not None:
            self._packs = self._pack_stream(self.pack_limits)
            return self._loader(PackedSet(self.train), self._packs, self.join)
        rank, world_size = self._place()
        batches = BatchStream(
            len(self.train),
            self.batch_size,
            self.num_batches,
            seed=self.seed,
            shuffle=self.shuffle,
            mixture=self.mixture,
            first_batch=self._batches_done,
            rank=rank,
            world_size=world_size,
        )
        return self._loader(self.train, batches, self.join)

    def _pack_stream(self, limits: Size) -> PackStream:
        rank, world_size = self._place()
        return PackStream(
            sizes_of(self.train.items),
            limits,
            ItemSampler(
                len(self.train), seed=self.seed, shuffle=self.shuffle, mixture=self.mixture
            ),
            batch_size=self.batch_size,
            num_batches=self.num_batches,
            first_batch=self._batches_done,
            state=self._packer_state,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Validation items once, in file order; an empty list when there are none."""
        if self.val is None:
            return []
        rank, world_size = self._place()
        mine = list(range(len(self.val)))[rank::world_size]
        size = self.batch_size
        batches = [mine[start : start + size] for start in range(0, len(mine), size)]
        return self._loader(self.val, batches, collate)

    def state_dict(self) -> dict[str, Any]:
        """How many batches the finished optimizer steps have taken, and where the packer was."""
        if self.trainer is None:
            return {}
        done = self.trainer.global_step * self.trainer.accumulate_grad_batches
        state = self._packs.state_before(done) if self._packs is not None else None
        return {"batches_done": done} | ({"packer": asdict(state)} if state is not None else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue behind the batches that are done."""
        self._batches_done = state_dict["batches_done"]
        packer = state_dict.get("packer")
        self._packer_state = PackerState(**packer) if packer is not None else None

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _loader(
        self,
        dataset: Dataset[EncodedSample],
        batches: BatchStream | PackStream | list[list[int]],
        join: Callable[..., Batch],
    ) -> DataLoader[Any]:
        workers = self.num_workers
        return TimedLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=partial(join, pad_id=self.pad_id),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=self.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
