"""A checkpoint folder as tensors to be read row by row: its shards, its index, its layout.

The native rows of every stored tensor are worked out once (`Checkpoint.where`), and what the folder
lacks or has too much of is known before a byte is written.

What it does not do: load anything into a model, or write (`merge`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.export.layouts import (
    AI2_HEAD,
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
from molmo_tune.export.tensor_files import StoredTensor, TensorFile, read_tensor_file

INDEX_NAME, SINGLE_NAME = "model.safetensors.index.json", "model.safetensors"
_EMBEDDING_ROWS = "transformer.wte.embedding"


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
    config: Any
    shapes: Shapes
    layout: Layout
    files: tuple[TensorFile, ...]
    where: dict[str, tuple[StoredRows, ...]]
    unexpected: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all weights on disk."""
        return sum(file.path.stat().st_size for file in self.files)


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
    files = tuple(read_tensor_file(path) for path in weight_files(folder))
    stored = {tensor.name: tensor for file in files for tensor in file.tensors}
    layout = layout_of(stored, folder)
    wanted = layout_names(layout, config, shapes)
    if layout == "ai2" and AI2_HEAD not in stored:
        wanted.remove(AI2_HEAD)  # trained with tied embeddings: the head is the embedding
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise UserError(folder, f"lacks {len(missing)} tensors, the first {missing[0]}")
    unexpected = tuple(sorted(stored.keys() - set(wanted)))
    where = _places(layout, stored, config.text_config.vocab_size, shapes, folder)
    return Checkpoint(folder, config, shapes, layout, files, where, unexpected)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order.

    Raises:
        UserError: there are none, or a shard of the index is missing.
    """
    index = folder / INDEX_NAME
    if not index.is_file():
        single = folder / SINGLE_NAME
        if not single.is_file():
            raise UserError(folder, "no model.safetensors", "a checkpoint with safetensors weights")
        return [single]
    names = sorted(set(read_index(folder)["weight_map"].values()))
    for name in names:
        if not (folder / name).is_file():
            raise UserError(
                index, f"names the shard {name}, which is missing", fix="download it again"
            )
    return [folder / name for name in names]


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


def _places(
    layout: Layout, stored: dict[str, StoredTensor], vocab_size: int, shapes: Shapes, folder: Path
) -> dict[str, tuple[StoredRows, ...]]:
    where: dict[str, list[StoredRows]] = {}
    for name, tensor in stored.items():
        parts = tensor_parts(layout, name, shapes, vocab_size)
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
        head = NativeRows("lm_head.weight", 0, vocab_size)
        where[head.name] = [StoredRows(head, stored[_EMBEDDING_ROWS], 0)]
    return {name: tuple(sorted(rows, key=lambda r: r.rows.first)) for name, rows in where.items()}
