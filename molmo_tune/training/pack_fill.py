"""How full the packs of a run really were: a figure while it trains, and one for the report."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from molmo_tune.encoding.encoded import Batch
from molmo_tune.encoding.packing import Size


class RecordPacks(Callback):
    """Count rows, samples, tokens and crops of the batches that this process trained on.

    Args:
        limits: of a row.
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
        """Add a batch, and log the share of its tokens that are not padding."""
        examples = batch.example_ids
        num_packs, num_tokens = len(examples), int((examples >= 0).sum())
        self.num_packs += num_packs
        self.num_samples += int((examples.max(dim=1).values + 1).sum())
        self.num_tokens += num_tokens
        self.num_crops += batch.num_crops
        fill = num_tokens / (num_packs * self._limits.num_tokens)
        pl_module.log("train/token_fill", fill, batch_size=num_packs)

    def figures(self) -> dict[str, float]:
        """For the report: counts, and shares of the limits."""
        num_packs = max(self.num_packs, 1)
        return {
            "packs": self.num_packs,
            "samples_per_pack": round(self.num_samples / num_packs, 2),
            "token_fill": round(self.num_tokens / (num_packs * self._limits.num_tokens), 4),
            "crop_fill": round(self.num_crops / (num_packs * self._limits.num_crops), 4),
        }
