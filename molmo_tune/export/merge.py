"""Base checkpoint + weight updates → merged checkpoint in any layout, a few rows at a time.

The merge walks the tensors of the new layout in the order of the base's files. Each is a stack of
native rows (`tensor_layouts`); rows of a trained tensor are updated in float32 (`weight_updates`),
all others are copied. Only some megabytes are in memory, and threads work on several pieces at once
(`prefetch`). The base is never quantized. In the base's own layout, the result has exactly the
files, tensors and shapes of the base, and a file without trained tensors is bit-identical.

A file gets its name only when it is complete and on disk, so a resumed merge writes exactly the
files that are missing.

The state of Ai2's trainer is one file. It has no head if the head equals the embedding: that model
was trained with tied embeddings, and its trainer would reject a head.

Limitations: configuration and processor files are copied by `config_files`; the result is verified
by `tensor_report` and `verify`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from molmo_tune.atomic_files import atomic_file, write_text
from molmo_tune.export.files.checkpoint import (
    INDEX_NAME,
    SINGLE_NAME,
    Checkpoint,
    StoredRows,
    read_index,
)
from molmo_tune.export.files.safetensors_files import (
    Piece,
    StoredTensor,
    TensorSpec,
    write_tensor_file,
)
from molmo_tune.export.files.torch_files import MODEL_PT, write_torch_file
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING
from molmo_tune.export.layouts.tensor_layouts import (
    AI2_HEAD,
    HUB_HEAD,
    Layout,
    NativeRows,
    layout_names,
    tensor_parts,
    tensor_shape,
)
from molmo_tune.export.preconditions import require_fit
from molmo_tune.export.weight_updates import RowUpdate, WeightUpdates

WEIGHT_FILES = ("*.safetensors", MODEL_PT)
DTYPES = {"base": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
"""The choices of `--dtype`; None keeps the dtype of each base tensor."""
Parts = tuple[NativeRows, ...]
_METADATA = {"format": "pt"}


@dataclass(frozen=True, slots=True)
class Written:
    """New tensor names by outcome; ``merged``: at least one of its native parts was trained.

    ``found`` are the files that an earlier, killed merge had completed. Their tensors are counted
    too.
    """

    unchanged: tuple[str, ...]
    merged: tuple[str, ...]
    found: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tally:
    unchanged: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)


def write_layout(
    base: Checkpoint, updates: WeightUpdates, out: Path, layout: Layout, dtype: torch.dtype | None
) -> Written:
    """Write merged weights into `out`, except the files that a killed merge completed there.

    Args:
        base: the checkpoint that was trained.
        updates: the weight updates of the run.
        out: existing folder, without weights or with some of this same merge.
        layout: of the new files.
        dtype: of all floating-point tensors; None keeps the dtype of each.

    Raises:
        UserError: the updates do not fit the base, or a file cannot be written.
    """
    require_fit(base, updates)
    tally = _Tally()
    writer = _Writer(base, updates, dtype, tally)
    metadata = {file.path.name: file.metadata for file in base.files}
    specs: dict[str, list[TensorSpec]] = {}
    found = []
    for name, placed in _new_files(base, layout).items():
        tensors = [writer.tensor(*new) for new in placed]
        specs[name] = [spec for spec, _ in tensors]
        if (out / name).is_file():
            found.append(name)
            continue
        with atomic_file(out / name) as part:
            if name == MODEL_PT:
                write_torch_file(part, tensors)
            else:
                write_tensor_file(part, tensors, metadata.get(name, _METADATA))
    if not specs.keys() <= {SINGLE_NAME, MODEL_PT}:  # a single shard needs its index, too
        _write_index(base, specs, out)
    return Written(tuple(tally.unchanged), tuple(tally.merged), tuple(found))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Produces the rows of new tensors on demand, and counts the tensors by outcome."""

    base: Checkpoint
    updates: WeightUpdates
    dtype: torch.dtype | None
    tally: _Tally

    def tensor(self, name: str, parts: Parts) -> tuple[TensorSpec, Iterator[Piece]]:
        """Return a new tensor's spec and the pieces of its rows."""
        if not parts:
            return self._copied(name)
        stored = self.base.where[parts[0].name][0].tensor.dtype
        dtype = self.dtype if self.dtype is not None and stored.is_floating_point else stored
        trained = any(part.name in self.updates.names for part in parts)
        (self.tally.merged if trained else self.tally.unchanged).append(name)
        spec = TensorSpec(name, dtype, tensor_shape(parts, self.base.shapes))
        return spec, self._pieces(parts, dtype)

    def _copied(self, name: str) -> tuple[TensorSpec, Iterator[Piece]]:
        tensor = next(t for file in self.base.files for t in file.tensors if t.name == name)
        spec = TensorSpec(name, tensor.dtype, tensor.shape)
        return spec, (partial(tensor.rows, *rows) for rows in tensor.chunks(0, tensor.num_rows))

    def _pieces(self, parts: Parts, dtype: torch.dtype) -> Iterator[Piece]:
        for part in parts:
            trained = part.name in self.updates.names
            update = self.updates.row_update(part.name) if trained else None
            for place in self.base.where[part.name]:
                yield from _part_pieces(place, part, update, dtype)


def _part_pieces(
    place: StoredRows, part: NativeRows, update: RowUpdate | None, dtype: torch.dtype
) -> Iterator[Piece]:
    """Yield the pieces for the rows of ``part`` that are stored in ``place``."""
    first, last = max(place.rows.first, part.first), min(place.rows.last, part.last)
    to_stored = place.offset - place.rows.first
    for start, end in place.tensor.chunks(first + to_stored, max(first, last) + to_stored):
        yield partial(_new_rows, place.tensor, (start, end), to_stored, update, dtype)


def _new_rows(
    tensor: StoredTensor,
    rows: tuple[int, int],
    to_stored: int,
    update: RowUpdate | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    old = tensor.rows(*rows)
    return (old if update is None else update(old, rows[0] - to_stored)).to(dtype)


def _new_files(base: Checkpoint, layout: Layout) -> dict[str, list[tuple[str, Parts]]]:
    """Return the new tensors by file name, in order; without parts if copied as they are."""
    vocab_size = base.config.text_config.vocab_size
    if layout == base.layout:  # tensors beyond the configuration stay, too
        return {
            file.path.name: [
                (t.name, tensor_parts(layout, t.name, base.shapes, vocab_size) or ())
                for t in file.tensors
            ]
            for file in base.files
        }
    placed: dict[str, list[tuple[int, str, Parts]]] = {}
    for name in _new_names(base, layout):
        parts = tensor_parts(layout, name, base.shapes, vocab_size)
        if not parts:
            raise ValueError(f"no rule for {name}")
        old_file, byte = _first_byte(base, parts[0])
        placed.setdefault(_new_file(old_file, layout), []).append((byte, name, parts))
    return {file: [new[1:] for new in sorted(placed[file])] for file in sorted(placed)}


def _new_names(base: Checkpoint, layout: Layout) -> list[str]:
    names = layout_names(layout, base.config, base.shapes)
    if layout == "ai2" and _is_tied(base):
        names.remove(AI2_HEAD)
    return names


def _is_tied(base: Checkpoint) -> bool:
    """Return whether the head equals the embedding; reads up to the first difference."""
    num_rows = base.shapes[HUB_HEAD][0]
    for place in base.where[HUB_HEAD]:
        for first, last in place.tensor.chunks(0, num_rows):
            head, table = (
                base.native_rows(name, first, last) for name in (HUB_HEAD, NATIVE_EMBEDDING)
            )
            if not torch.equal(head, table):
                return False
    return True


def _new_file(old_file: str, layout: Layout) -> str:
    if layout == "ai2":
        return MODEL_PT
    return SINGLE_NAME if old_file == MODEL_PT else old_file


def _first_byte(base: Checkpoint, part: NativeRows) -> tuple[str, int]:
    """Return file and offset of a part's first row, which decide the place of the new tensor."""
    place = next(p for p in base.where[part.name] if p.rows.first <= part.first < p.rows.last)
    row = place.offset + part.first - place.rows.first
    return place.tensor.file.name, place.tensor.start + row * place.tensor.row_bytes


def _write_index(base: Checkpoint, placed: dict[str, list[TensorSpec]], out: Path) -> None:
    index: dict[str, Any] = read_index(base.folder)
    index["weight_map"] = {spec.name: file for file, specs in placed.items() for spec in specs}
    total = sum(spec.num_bytes for specs in placed.values() for spec in specs)
    index.setdefault("metadata", {})["total_size"] = total
    write_text(out / INDEX_NAME, json.dumps(index, indent=2, sort_keys=True) + "\n")
