"""What became of every tensor, read back from the files of an export and of its base.

The merge says what it meant to write; this looks at what lies on the disk. Every tensor of the
export is compared with the base's rows, bit by bit, whatever the two layouts are:

    unchanged    not trained, the same bits
    merged       trained, other bits
    lost         trained, and yet the same bits: an update too small for 16 bits, or none at all
    missing      of the layout, but not in the export (reading refuses such a folder)
    unexpected   in the export beyond its configuration, as they were in the base

A tensor that differs without having been trained is an error, and so is an adapter of which nothing
arrived. Without changes this is the proof that a conversion between layouts kept every bit.

What it does not do: show that a merged tensor has the *right* bits (`verify`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import Checkpoint
from molmo_tune.export.layouts.layouts import tensor_parts
from molmo_tune.export.weight_updates import WeightUpdates


@dataclass(frozen=True, slots=True)
class TensorReport:
    """Names of the export's tensors by what became of them; see the module's text."""

    unchanged: tuple[str, ...]
    merged: tuple[str, ...]
    lost: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Counts, and all names but those of unchanged tensors."""
        named = {name: list(getattr(self, name)) for name in _NAMED}
        return {"unchanged": len(self.unchanged), "merged": len(self.merged), "names": named}


_NAMED = ("merged", "lost", "missing", "unexpected")


def compare_tensors(
    base: Checkpoint, export: Checkpoint, changes: WeightUpdates, dtype: torch.dtype | None
) -> TensorReport:
    """Compare an export with its base.

    Args:
        base: what was trained on.
        export: in any layout.
        changes: what was trained.
        dtype: the export's; None when the base's types were kept.

    Raises:
        UserError: an untrained tensor has other bits, or nothing of the training arrived.
    """
    found: dict[str, list[str]] = {"unchanged": [], "merged": [], "lost": []}
    tensors = [tensor for file in export.files for tensor in file.tensors]
    cut = export.config.text_config.vocab_size
    for tensor in tensors:
        parts = tensor_parts(export.layout, tensor.name, export.shapes, cut)
        if parts is None:
            continue
        names = {part.name for part in parts}
        same = all(_same_bits(base, export, name, dtype) for name in names)
        trained = not names.isdisjoint(changes.names)
        if not same and not trained:
            raise UserError(export.folder, f"{tensor.name} changed without having been trained")
        found["unchanged" if not trained else "lost" if same else "merged"].append(tensor.name)
    if found["lost"] and not found["merged"] and not all(map(changes.is_zero, changes.names)):
        raise UserError(
            export.folder,
            f"nothing of the training arrived: all {len(found['lost'])} trained tensors are "
            "those of the base",
            "at least one that differs",
            "export in float32 with --dtype float32, or train longer or at a higher rate",
        )
    return TensorReport(
        **{key: tuple(names) for key, names in found.items()}, unexpected=export.unexpected
    )


def _same_bits(base: Checkpoint, export: Checkpoint, name: str, dtype: torch.dtype | None) -> bool:
    """Whether a native tensor has the base's bits, once rounded to the export's type."""
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
    """As bytes: a NaN equals itself, and the two zeros differ."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
