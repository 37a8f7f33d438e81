"""The models that verification compares: the run and its export, both computing in float32."""

from __future__ import annotations

import torch

from molmo_tune.export.files.checkpoint import Checkpoint
from molmo_tune.export.verification.stored_16bit import keep_16bit
from molmo_tune.model.adapters import WEIGHTS_FILE, load_adapter
from molmo_tune.model.loading import load_model, model_from_tensors
from molmo_tune.model.molmo import Molmo
from molmo_tune.run_folder import RunFolder

LARGE = 2_000_000_000
"""From this number of weights on (8 GB in float32), a model stays 16-bit in memory."""


def load_float32(name: str, stored: torch.dtype, num_weights: int) -> Molmo:
    """Load a checkpoint to compute in float32; a large 16-bit one stays 16-bit in memory.

    Args:
        name: hub id, folder or ``tiny``.
        stored: dtype of the weights in the files.
        num_weights: of the model.
    """
    if num_weights < LARGE or stored == torch.float32:
        return load_model(name)
    return keep_16bit(load_model(name, dtype=stored))


def load_run(run: RunFolder, name: str, base: Checkpoint) -> torch.nn.Module:
    """Load a run's adapter on its base.

    Args:
        run: with a trained adapter.
        name: of the base.
        base: its headers.
    """
    if (run.adapter / WEIGHTS_FILE).is_file():  # trained in float32, must not be rounded
        return load_adapter(load_model(name), run.adapter)
    return load_adapter(load_float32(name, base.dtype, base.num_weights), run.adapter)


def load_export(export: Checkpoint) -> Molmo:
    """Load an export as Transformers does, or from its tensors if Transformers cannot (`ai2`)."""
    if export.layout != "ai2":
        return load_float32(str(export.folder), export.dtype, export.num_weights)
    if export.num_weights >= LARGE and export.dtype != torch.float32:
        tensors = {name: export.native_rows(name) for name in export.where}
        return keep_16bit(model_from_tensors(export.config, tensors))
    tensors = {name: export.native_rows(name).float() for name in export.where}
    return model_from_tensors(export.config, tensors)
