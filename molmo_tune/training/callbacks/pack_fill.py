"""How full a run's packs are: logged while it trains, summed up in its report."""

from __future__ import annotations

from typing import Any, TypedDict

import lightning as L
from lightning.pytorch.callbacks import Callback

from molmo_tune.encoding.encoded import Batch
from molmo_tune.encoding.packing import Size


class PackFigures(TypedDict):
    """The report's figures: packs, samples per pack, and the filled fraction of both limits."""

    packs: int
    samples_per_pack: float
    token_fill: float
    crop_fill: float


class RecordPacks(Callback):
    """Counts packs, samples, tokens and crops of the batches that this process trains on.

    Args:
        limits: tokens and crops of a pack.
    """

    def __init__(self, limits: Size) -> None:
        self._limits = limits
        self.num_packs = self.num_samples = self.num_tokens = self.num_crops = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        _outputs: Any,
        batch: Batch,
        *_: Any,
    ) -> None:
        """Count a batch, and log the fraction of its tokens that are not padding."""
        examples = batch.example_ids
        num_packs, num_tokens = len(examples), int((examples >= 0).sum())
        self.num_packs += num_packs
        self.num_samples += int((examples.max(dim=1).values + 1).sum())
        self.num_tokens += num_tokens
        self.num_crops += batch.num_crops
        fill = num_tokens / (num_packs * self._limits.num_tokens)
        pl_module.log("train/token_fill", fill, batch_size=num_packs)

    def figures(self) -> PackFigures:
        """Return the figures for the report."""
        num_packs = max(self.num_packs, 1)
        return {
            "packs": self.num_packs,
            "samples_per_pack": round(self.num_samples / num_packs, 2),
            "token_fill": round(self.num_tokens / (num_packs * self._limits.num_tokens), 4),
            "crop_fill": round(self.num_crops / (num_packs * self._limits.num_crops), 4),
        }
