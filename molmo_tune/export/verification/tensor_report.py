"""Outcome of every tensor, from a comparison of the export's files with the base's.

The merge reports what it meant to write; this reads what is on disk. Every tensor of the export is
compared bit by bit with the rows of the base, in any two layouts:

    unchanged           not trained, same bits
    merged              trained, different bits
    unchanged_trained   trained, same bits: the update is zero, or too small for 16 bits
    missing             in the layout but not in the export (which `read_checkpoint` rejects)
    unexpected          beyond the configuration, copied from the base

It is an error if an untrained tensor differs, or if no trained tensor does. Without updates, this
verifies that a conversion between layouts kept every bit.

Limitations: whether a merged tensor has the *right* bits is verified by its logits (`verify`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import Checkpoint
from molmo_tune.export.layouts.tensor_layouts import tensor_parts
from molmo_tune.export.report import TensorCounts
from molmo_tune.export.weight_updates import WeightUpdates


@dataclass(frozen=True, slots=True)
class TensorReport:
    """Tensor names of the export by outcome; see the module's docstring."""

    unchanged: tuple[str, ...]
    merged: tuple[str, ...]
    unchanged_trained: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def to_json(self) -> TensorCounts:
        """Return the counts, and the names of all but the unchanged tensors."""
        named = {name: list(getattr(self, name)) for name in _NAMED}
        return {"unchanged": len(self.unchanged), "merged": len(self.merged), "names": named}


_NAMED = ("merged", "unchanged_trained", "missing", "unexpected")


def compare_tensors(
    base: Checkpoint, export: Checkpoint, updates: WeightUpdates, dtype: torch.dtype | None
) -> TensorReport:
    """Compare an export with its base.

    Args:
        base: the checkpoint that was trained.
        export: in any layout.
        updates: the weight updates of the run.
        dtype: of the export; None if it kept the base's.

    Raises:
        UserError: an untrained tensor differs from the base, or no trained one does.
    """
    found: dict[str, list[str]] = {"unchanged": [], "merged": [], "unchanged_trained": []}
    tensors = [tensor for file in export.files for tensor in file.tensors]
    vocab_size = export.config.text_config.vocab_size
    for tensor in tensors:
        parts = tensor_parts(export.layout, tensor.name, export.shapes, vocab_size)
        if parts is None:
            continue
        names = {part.name for part in parts}
        is_same = all(_same_bits(base, export, name, dtype) for name in names)
        is_trained = not names.isdisjoint(updates.names)
        if not is_same and not is_trained:
            raise UserError(export.folder, f"{tensor.name} changed but was not trained")
        outcome = "merged" if not is_same else "unchanged_trained" if is_trained else "unchanged"
        found[outcome].append(tensor.name)
    unchanged = len(found["unchanged_trained"])
    if unchanged and not found["merged"] and not all(map(updates.is_zero, updates.names)):
        raise UserError(
            export.folder,
            f"no update survived: all {unchanged} trained tensors are identical to the base's",
            "at least one that differs",
            "export in float32 with --dtype float32, or train longer or with a higher lr",
        )
    return TensorReport(
        **{key: tuple(names) for key, names in found.items()}, unexpected=export.unexpected
    )


def _same_bits(base: Checkpoint, export: Checkpoint, name: str, dtype: torch.dtype | None) -> bool:
    """Return whether a native tensor has the base's bits, rounded to the export's dtype."""
    for place in export.where[name]:
        shift = place.offset - place.rows.first
        rows = place.rows
        for first, last in place.tensor.chunks(rows.first + shift, rows.last + shift):
            theirs = base.native_rows(name, first - shift, last - shift)
            ours = place.tensor.rows(first, last)
            if ours.dtype != (dtype if dtype and theirs.is_floating_point() else theirs.dtype):
                return False
            if not torch.equal(_bits(ours), _bits(theirs.to(ours.dtype))):
                return False
    return True


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes, so that NaN equals NaN, and 0.0 differs from -0.0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
