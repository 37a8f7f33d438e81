"""Checks before an export writes anything: the right base, matching shapes, enough disk space."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from molmo_tune.encoding.processor import Processor
from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import Checkpoint
from molmo_tune.export.files.config_files import side_files
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING, NATIVE_NORM
from molmo_tune.export.layouts.tensor_layouts import HUB_HEAD
from molmo_tune.export.weight_updates import WeightUpdates
from molmo_tune.model.fingerprint import (
    ROWS,
    processor_identity,
    require_same_base,
    weights_identity,
)
from molmo_tune.run_folder import RunFolder
from molmo_tune.units import gigabytes, missed

_HEADERS = 1.02  # tensor headers, indexes and reports take up to 2% on top of the weights


def require_trained_base(run: RunFolder, base: Checkpoint, processor: Processor) -> None:
    """Check that this is the base that the run recorded, if it recorded one.

    Raises:
        UserError: it is a different one.
    """
    if run.base.is_file():
        names = (NATIVE_NORM, NATIVE_EMBEDDING, HUB_HEAD)
        weights = weights_identity(
            *(base.native_rows(name, 0, min(ROWS, base.shapes[name][0])) for name in names)
        )
        recorded = json.loads(run.base.read_text(encoding="utf-8"))
        found = processor_identity(processor) | {"weights": weights}
        require_same_base(recorded, found, run.base)


def require_fit(base: Checkpoint, updates: WeightUpdates) -> None:
    """Check that the base has every trained tensor, with the same shape.

    Raises:
        UserError: it lacks one, or a shape differs.
    """
    expected = "the base of the run"
    missing = sorted(updates.names - base.shapes.keys())
    if missing:
        found = f"lacks {len(missing)} trained tensors, the first {missing[0]}"
        raise UserError(base.folder, found, expected)
    for name in sorted(updates.names):
        if updates.shape(name) != base.shapes[name]:
            found = f"{name} has shape {base.shapes[name]}, the trained one {updates.shape(name)}"
            raise UserError(base.folder, found, expected)


def require_free_space(
    folder: Path, base: Checkpoint, dtype: torch.dtype | None, *, copies: float = 1.0
) -> None:
    """Check that the disk has space for the new checkpoint.

    Args:
        folder: to write into; files already there count as written.
        base: gives the sizes.
        dtype: of the new tensors; None keeps those of the base.
        copies: how often the weights are written.

    Raises:
        UserError: it has not.
    """
    tensors = [tensor for file in base.files for tensor in file.tensors]
    weights = sum(t.num_rows * t.row_bytes * _growth(t.dtype, dtype) for t in tensors)
    needed = weights * _HEADERS * copies
    needed += sum(file.stat().st_size for file in side_files(base.folder))
    needed -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    if free < needed:
        has, needs = missed(free, needed, gigabytes)
        raise UserError(folder.parent, f"{has} free", f"at least {needs}", "free some disk space")


def _growth(stored: torch.dtype, dtype: torch.dtype | None) -> float:
    return 1.0 if dtype is None else dtype.itemsize / stored.itemsize
