"""Base checkpoint + what was trained → merged checkpoint in any layout, a few rows at a time.

The tensors of the new layout are walked in the order of the base's files. Each is a stack of native
rows (`layouts`); rows of a tensor that was trained are changed in float32 (`changes`), all others
are copied. Some megabytes are in memory at a time, several pieces under way in threads (`ahead`).
The base is never quantized, and in the base's own layout the result has exactly the files, tensors
and shapes of the base. Where nothing was changed the files are bit-equal.

A file has its name only when it is whole and on the disk: whoever goes on with a merge that was
killed writes those that have none.

The trainer's state is one file, and has no head where the head is the embedding: such a model was
trained with tied embeddings, and its trainer would refuse a head.

What it does not do: copy configuration and processor (`side_files`), or prove anything (`account`,
`verify`).
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
from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import (
    INDEX_NAME,
    SINGLE_NAME,
    Checkpoint,
    StoredRows,
    read_index,
)
from molmo_tune.export.files.tensor_files import Piece, StoredTensor, TensorSpec, write_tensor_file
from molmo_tune.export.files.torch_files import MODEL_PT, write_torch_file
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING
from molmo_tune.export.layouts.layouts import (
    AI2_HEAD,
    HUB_HEAD,
    Layout,
    NativeRows,
    layout_names,
    tensor_parts,
    tensor_shape,
)
from molmo_tune.export.weight_updates import RowChange, WeightUpdates

WEIGHT_FILES = ("*.safetensors", MODEL_PT)
Parts = tuple[NativeRows, ...]
_METADATA = {"format": "pt"}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, by the new names. ``merged``: a part of it was trained.

    ``found`` are files that an earlier merge had finished; their tensors are among the others.
    """

    unchanged: tuple[str, ...]
    merged: tuple[str, ...]
    found: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tally:
    unchanged: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)


def write_layout(
    base: Checkpoint, changes: WeightUpdates, out: Path, layout: Layout, dtype: torch.dtype | None
) -> Written:
    """Write weights into `out`, or those that a killed merge has not written there.

    Args:
        base: what was trained on.
        changes: what was trained.
        out: existing folder, without weights or with some of this very merge.
        layout: of the new files.
        dtype: of all floating tensors; None keeps each tensor's own.

    Raises:
        UserError: what was trained fits other modules or shapes.
    """
    require_fit(base, changes)
    tally = _Tally()
    writer = _Writer(base, changes, dtype, tally)
    metadata = {file.path.name: file.metadata for file in base.files}
    specs: dict[str, list[TensorSpec]] = {}
    found = []
    for name, news in _new_files(base, layout).items():
        tensors = [writer.tensor(*new) for new in news]
        specs[name] = [spec for spec, _ in tensors]
        if (out / name).is_file():
            found.append(name)
            continue
        with atomic_file(out / name) as part:
            if name == MODEL_PT:
                write_torch_file(part, tensors)
            else:
                write_tensor_file(part, tensors, metadata.get(name, _METADATA))
    if not specs.keys() <= {SINGLE_NAME, MODEL_PT}:  # also a lone shard is found by its index
        _write_index(base, specs, out)
    return Written(tuple(tally.unchanged), tuple(tally.merged), tuple(found))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Makes tensors' rows on demand and notes what became of each."""

    base: Checkpoint
    changes: WeightUpdates
    dtype: torch.dtype | None
    tally: _Tally

    def tensor(self, name: str, parts: Parts) -> tuple[TensorSpec, Iterator[Piece]]:
        """A new tensor and the pieces of its rows."""
        if not parts:
            return self._copied(name)
        stored = self.base.where[parts[0].name][0].tensor.dtype
        dtype = self.dtype if self.dtype is not None and stored.is_floating_point else stored
        trained = any(part.name in self.changes.names for part in parts)
        (self.tally.merged if trained else self.tally.unchanged).append(name)
        spec = TensorSpec(name, dtype, tensor_shape(parts, self.base.shapes))
        return spec, self._pieces(parts, dtype)

    def _copied(self, name: str) -> tuple[TensorSpec, Iterator[Piece]]:
        tensor = next(t for file in self.base.files for t in file.tensors if t.name == name)
        spec = TensorSpec(name, tensor.dtype, tensor.shape)
        return spec, (partial(tensor.rows, *rows) for rows in tensor.chunks(0, tensor.num_rows))

    def _pieces(self, parts: Parts, dtype: torch.dtype) -> Iterator[Piece]:
        for part in parts:
            trained = part.name in self.changes.names
            change = self.changes.row_change(part.name) if trained else None
            for place in self.base.where[part.name]:
                yield from _part_pieces(place, part, change, dtype)


def _part_pieces(
    place: StoredRows, part: NativeRows, change: RowChange | None, dtype: torch.dtype
) -> Iterator[Piece]:
    """Pieces that make the rows of ``part`` that lie here, as they are now."""
    first, last = max(place.rows.first, part.first), min(place.rows.last, part.last)
    to_stored = place.offset - place.rows.first
    for start, end in place.tensor.chunks(first + to_stored, max(first, last) + to_stored):
        yield partial(_rows_now, place.tensor, (start, end), to_stored, change, dtype)


def _rows_now(
    tensor: StoredTensor,
    rows: tuple[int, int],
    to_stored: int,
    change: RowChange | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    old = tensor.rows(*rows)
    return (old if change is None else change(old, rows[0] - to_stored)).to(dtype)


def require_fit(base: Checkpoint, changes: WeightUpdates) -> None:
    """Check that what was trained belongs to this base.

    Raises:
        UserError: it fits other modules or shapes.
    """
    expected = "the base that was trained on"
    missing = sorted(changes.names - base.shapes.keys())
    if missing:
        raise UserError(
            base.folder,
            f"has no tensor for {len(missing)} trained ones, the first {missing[0]}",
            expected,
        )
    for name in sorted(changes.names):
        if changes.shape(name) != base.shapes[name]:
            raise UserError(
                base.folder,
                f"{name} is {base.shapes[name]}, what was trained is {changes.shape(name)}",
                expected,
            )


def _new_files(base: Checkpoint, layout: Layout) -> dict[str, list[tuple[str, Parts]]]:
    """New tensors by file name, in order; no parts for one that is copied as it is."""
    vocab_size = base.config.text_config.vocab_size
    if layout == base.layout:  # also what lies beyond the configuration stays where it is
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
    """Whether the head is a copy of the embedding; read only as far as they are equal."""
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
    """File and offset of a native row: new tensors are put where their first row comes from."""
    place = next(p for p in base.where[part.name] if p.rows.first <= part.first < p.rows.last)
    row = place.offset + part.first - place.rows.first
    return place.tensor.file.name, place.tensor.start + row * place.tensor.row_bytes


def _write_index(base: Checkpoint, placed: dict[str, list[TensorSpec]], out: Path) -> None:
    index: dict[str, Any] = read_index(base.folder)
    index["weight_map"] = {spec.name: file for file, specs in placed.items() for spec in specs}
    total = sum(spec.num_bytes for specs in placed.values() for spec in specs)
    index.setdefault("metadata", {})["total_size"] = total
    write_text(out / INDEX_NAME, json.dumps(index, indent=2, sort_keys=True) + "\n")
