"""The `LightningDataModule`: datasets to batches, in an order that can be resumed.

The batch number follows from the number of finished optimizer steps, and the number decides the
items (`batch_stream`, `pack_stream`). With packing, the checkpoint also keeps the packer's state,
so that a long run need not be planned again from its start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypedDict

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from molmo_tune.choices import Weighting
from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import PackedSet, TrainingSet
from molmo_tune.encoding.encoded import Batch, EncodedSample
from molmo_tune.encoding.items import Item, MediaLimits
from molmo_tune.encoding.media_inputs import FeatureNames
from molmo_tune.encoding.pack_plan import sizes_of
from molmo_tune.encoding.packing import PackerState, Size
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sampler import ItemSampler, Mixture
from molmo_tune.encoding.sources import limits_of, mixture_of, pack_limits_of
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.batches.batch_stream import BatchStream
from molmo_tune.training.batches.pack_stream import PackStream
from molmo_tune.training.callbacks.data_wait import TimedLoader

Collate = Callable[..., Batch]
"""Joins samples into a batch, given `pad_id`."""


class MolmoDataModule(L.LightningDataModule):
    """Batches of encoded samples.

    Args:
        train: dataset to train on.
        val: dataset for the validation loss, if any.
        pad_id: token that fills short rows.
        num_batches: batches of the run (optimizer steps times accumulation).
        batch_size: items per batch.
        num_workers: loader processes; they are spawned, because video readers do not survive a
            fork.
        prefetch: batches that each loader process keeps ready.
        seed: fixes the order.
        shuffle: whether the order changes every epoch.
        mixture: weights of the sources; None: every item comes once per epoch.
        pack_limits: tokens and crops of a row with several items; None: one item per row.
        collate_train: joins training samples into a batch.
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
        collate_train: Collate = collate,
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.pad_id, self.num_batches, self.batch_size = pad_id, num_batches, batch_size
        self.num_workers, self.prefetch = num_workers, prefetch
        self.seed, self.shuffle, self.mixture = seed, shuffle, mixture
        self.pack_limits, self.collate_train = pack_limits, collate_train
        self._batches_done = 0
        self._packer_state: PackerState | None = None
        self._packs: PackStream | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the run, from the first that is not done."""
        if self.pack_limits is not None:
            self._packs = self._pack_stream(self.pack_limits)
            return self._loader(PackedSet(self.train), self._packs, self.collate_train)
        rank, world_size = self._rank_and_world_size()
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
        return self._loader(self.train, batches, self.collate_train)

    def _pack_stream(self, limits: Size) -> PackStream:
        rank, world_size = self._rank_and_world_size()
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
        """Return the validation items once, in file order; an empty list if there are none."""
        if self.val is None:
            return []
        rank, world_size = self._rank_and_world_size()
        mine = list(range(len(self.val)))[rank::world_size]
        size = self.batch_size
        batches = [mine[start : start + size] for start in range(0, len(mine), size)]
        return self._loader(self.val, batches, collate)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches in finished optimizer steps, and the packer's state."""
        if self.trainer is None:
            return {}
        done = self.trainer.global_step * self.trainer.accumulate_grad_batches
        state = self._packs.state_before(done) if self._packs is not None else None
        return {"batches_done": done} | ({"packer": asdict(state)} if state is not None else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the batches that are done."""
        self._batches_done = state_dict["batches_done"]
        packer = state_dict.get("packer")
        self._packer_state = PackerState(**packer) if packer is not None else None

    def _rank_and_world_size(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _loader(
        self,
        dataset: Dataset[EncodedSample],
        batches: BatchStream | PackStream | list[list[int]],
        collate_samples: Collate,
    ) -> DataLoader[Any]:
        workers = self.num_workers
        return TimedLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=partial(collate_samples, pad_id=self.pad_id),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=self.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class DatasetOptions(TypedDict):
    """Arguments of `TrainingSet` that a recipe decides."""

    processor: Processor
    limits: MediaLimits
    weighting: Weighting
    cache_bytes: int
    features: FeatureNames | None
    quarantine: bool


def dataset_options(
    recipe: Recipe, processor: Processor, features: FeatureNames | None = None
) -> DatasetOptions:
    """Return the recipe's options for datasets that training reads.

    Unreadable media are quarantined; `MediaMonitor` stops the run when there are too many.
    """
    return {
        "processor": processor,
        "limits": limits_of(recipe),
        "weighting": recipe.loss.weighting,
        "cache_bytes": recipe.data.cache_mb * 1_000_000,
        "features": features,
        "quarantine": True,
    }


def build_data_module(
    recipe: Recipe,
    train: TrainingSet,
    val_items: Sequence[Item],
    options: DatasetOptions,
    *,
    collate_train: Collate = collate,
) -> MolmoDataModule:
    """Return the data module of a run: `train` in the recipe's order, and the validation items."""
    return MolmoDataModule(
        train,
        TrainingSet(val_items, **options) if val_items else None,
        pad_id=int(options["processor"].tokenizer.pad_token_id),
        num_batches=recipe.trainer.max_steps * recipe.trainer.accumulate_grad_batches,
        batch_size=recipe.trainer.batch_size,
        num_workers=recipe.data.num_workers,
        prefetch=recipe.data.prefetch,
        seed=recipe.seed,
        shuffle=recipe.data.shuffle,
        mixture=mixture_of(train.items, recipe),
        pack_limits=pack_limits_of(recipe),
        collate_train=collate_train,
    )
