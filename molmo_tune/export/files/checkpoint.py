"""A checkpoint folder as tensors to be read row by row: its shards, its index, its layout.

The native rows of every stored tensor are worked out once (`Checkpoint.where`), and what the folder
lacks or has too much of is known before a byte is written. Transformers' own `save_pretrained` cuts
the embedding into two equal halves under the hub's names; such files are read as they are meant.

What it does not do: load anything into a model, or write (`merge`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from molmo_tune.errors import UserError
from molmo_tune.export.files.tensor_files import StoredTensor, TensorFile, read_tensor_file
from molmo_tune.export.files.torch_files import MODEL_PT, read_torch_file
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING
from molmo_tune.export.layouts.layouts import (
    AI2_EMBEDDING,
    AI2_HEAD,
    AI2_NEW_EMBEDDING,
    HUB_HEAD,
    HUB_PREFIX,
    Layout,
    NativeRows,
    Shapes,
    layout_names,
    layout_of,
    native_shapes,
    read_config,
    tensor_parts,
    tensor_shape,
)
from molmo_tune.model.molmo import MolmoConfig

INDEX_NAME, SINGLE_NAME = "model.safetensors.index.json", "model.safetensors"
SHARDED_STATE = "model_and_optim"  # Ai2's trainer, before it is made one file


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Native rows ``rows`` lie in ``tensor`` from its row ``offset`` on."""

    rows: NativeRows
    tensor: StoredTensor
    offset: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Shards in order; ``where``: for each native tensor, the places of its rows, in order."""

    folder: Path
    config: MolmoConfig
    shapes: Shapes
    layout: Layout
    files: tuple[TensorFile, ...]
    where: dict[str, tuple[StoredRows, ...]]
    unexpected: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """Its shards."""
        return [file.path for file in self.files]

    @property
    def num_weights(self) -> int:
        """Numbers in the native model."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def native_rows(self, name: str, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Rows ``first`` to ``last`` (exclusive) of a native tensor, in memory of their own."""
        last = self.where[name][-1].rows.last if last is None else last
        pieces = []
        for place in self.where[name]:
            start, end = max(first, place.rows.first), min(last, place.rows.last)
            if start < end:
                shift = place.offset - place.rows.first
                pieces.append(place.tensor.rows(start + shift, end + shift))
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def read_checkpoint(folder: Path, config_folder: Path | None = None) -> Checkpoint:
    """Read the headers of a checkpoint.

    Args:
        folder: with safetensors weights in any layout.
        config_folder: where `config.json` lies, if elsewhere.

    Raises:
        UserError: a shard is missing or broken, or names or shapes are not those of the
            configuration. Tensors of a known layout beyond the configuration are only listed.
    """
    config = read_config(config_folder or folder)
    shapes = native_shapes(config)
    files = tuple(
        read_torch_file(path) if path.name == MODEL_PT else read_tensor_file(path)
        for path in weight_files(folder)
    )
    stored = {tensor.name: tensor for file in files for tensor in file.tensors}
    layout = layout_of(stored, folder)
    wanted = layout_names(layout, config, shapes)
    if layout == "ai2" and AI2_HEAD not in stored:
        wanted.remove(AI2_HEAD)  # trained with tied embeddings: the head is the embedding
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise UserError(folder, f"lacks {len(missing)} tensors, the first {missing[0]}")
    unexpected = tuple(sorted(stored.keys() - set(wanted)))
    cut = _embedding_cut(stored, config.text_config.vocab_size, shapes)
    where = _places(layout, stored, cut, shapes, folder)
    return Checkpoint(folder, config, shapes, layout, files, where, unexpected)


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that hold weights, in order.

    Raises:
        UserError: there are none, or a shard of the index is missing.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        names = sorted(set(read_index(folder)["weight_map"].values()))
        for name in names:
            if not (folder / name).is_file():
                raise UserError(
                    index, f"names the shard {name}, which is missing", fix="download it again"
                )
        return [folder / name for name in names]
    for name in (SINGLE_NAME, MODEL_PT):
        if (folder / name).is_file():
            return [folder / name]
    if (folder / SHARDED_STATE).is_dir():
        raise UserError(
            folder,
            f"a sharded state of Ai2's trainer ({SHARDED_STATE})",
            f"its unsharded {MODEL_PT}",
            "save it unsharded with Ai2's code",
        )
    raise UserError(
        folder, f"no {SINGLE_NAME} or {MODEL_PT}", "a checkpoint with safetensors weights"
    )


def read_index(folder: Path) -> dict[str, Any]:
    """The index of shards.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / INDEX_NAME
    try:
        index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        index["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(file, "is no index of shards", fix="download it again") from error
    return index


def _embedding_cut(stored: dict[str, StoredTensor], vocab_size: int, shapes: Shapes) -> int:
    """Row of the native embedding at which its second table begins: the vocabulary, or half."""
    for prefix in ("", HUB_PREFIX):
        tables = [stored.get(f"{prefix}{name}") for name in (AI2_EMBEDDING, AI2_NEW_EMBEDDING)]
        rows = [table.shape[0] for table in tables if table is not None and table.shape]
        if len(rows) == 2 and rows[0] == rows[1] and sum(rows) == shapes[NATIVE_EMBEDDING][0]:
            return rows[0]
    return vocab_size


def _places(
    layout: Layout, stored: dict[str, StoredTensor], cut: int, shapes: Shapes, folder: Path
) -> dict[str, tuple[StoredRows, ...]]:
    where: dict[str, list[StoredRows]] = {}
    for name, tensor in stored.items():
        parts = tensor_parts(layout, name, shapes, cut)
        if parts is None:
            continue
        if tensor.shape != tensor_shape(parts, shapes):
            raise UserError(
                folder,
                f"{name} is {tensor.shape}",
                f"{tensor_shape(parts, shapes)} by its config.json",
            )
        offset = 0
        for part in parts:
            where.setdefault(part.name, []).append(StoredRows(part, tensor, offset))
            offset += part.last - part.first
    if layout == "ai2" and AI2_HEAD not in stored:
        num_rows = shapes[HUB_HEAD][0]
        head = NativeRows(HUB_HEAD, 0, num_rows)
        where[HUB_HEAD] = [StoredRows(head, stored[AI2_EMBEDDING], 0)]
    return {name: tuple(sorted(rows, key=lambda r: r.rows.first)) for name, rows in where.items()}
