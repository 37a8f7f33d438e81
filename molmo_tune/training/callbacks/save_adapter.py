"""Write the trained weights into the run folder when training ends."""

from __future__ import annotations

from typing import cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from molmo_tune.model.adapters import save_adapter
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.fsdp import gather_trained_weights
from molmo_tune.training.molmo_module import MolmoModule


class SaveAdapter(Callback):
    """Writes ``adapter/`` of the run folder.

    Limitations: an exception or Ctrl-C ends a run without it; the last checkpoint remains.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save from the first process; under FSDP every process contributes its shards."""
        model = cast(MolmoModule, pl_module).model
        gathered = gather_trained_weights(model)
        if trainer.is_global_zero:
            save_adapter(model, self._run.adapter, gathered)
