"""A checkpoint folder as tensors that are read row by row: its shards, index and layout.

The headers alone show which native rows each stored tensor holds (`Checkpoint.where`), and which
tensors are missing or unexpected, before a byte is written. Transformers' `save_pretrained` splits
the embedding into two equal halves under the hub names; such files are read correctly.

Limitations: nothing is loaded into a model; `merge` writes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from molmo_tune.errors import UserError
from molmo_tune.export.files.safetensors_files import StoredTensor, TensorFile, read_tensor_file
from molmo_tune.export.files.torch_files import MODEL_PT, read_torch_file
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING
from molmo_tune.export.layouts.tensor_layouts import (
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
SHARDED_STATE = "model_and_optim"  # folder of Ai2's trainer, before unsharding


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Native rows ``rows``, stored in ``tensor`` from its row ``offset``."""

    rows: NativeRows
    tensor: StoredTensor
    offset: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The shards of a checkpoint, in order.

    ``where``: for each native tensor, where its rows are stored, in order. ``unexpected``: stored
    tensors beyond the configuration.
    """

    folder: Path
    config: MolmoConfig
    shapes: Shapes
    layout: Layout
    files: tuple[TensorFile, ...]
    where: dict[str, tuple[StoredRows, ...]]
    unexpected: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """Paths of the shards."""
        return [file.path for file in self.files]

    @property
    def num_weights(self) -> int:
        """Number of weights in the native model."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored LM head, which represents all weights."""
        return self.where[HUB_HEAD][0].tensor.dtype

    def native_rows(self, name: str, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Return a copy of rows ``first`` to ``last`` (exclusive) of a native tensor."""
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
        folder: weights in any layout.
        config_folder: folder of `config.json`, if it is a different one.

    Raises:
        UserError: a shard is missing or broken, or names or shapes do not match the
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
    expected = layout_names(layout, config, shapes)
    if layout == "ai2" and AI2_HEAD not in stored:
        expected.remove(AI2_HEAD)  # trained with tied embeddings: the head is the embedding
    missing = [name for name in expected if name not in stored]
    if missing:
        raise UserError(folder, f"lacks {len(missing)} tensors, the first {missing[0]}")
    unexpected = tuple(sorted(stored.keys() - set(expected)))
    split = _embedding_split(stored, config.text_config.vocab_size, shapes)
    where = _places(layout, stored, split, shapes, folder)
    return Checkpoint(folder, config, shapes, layout, files, where, unexpected)


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a checkpoint, in order.

    Raises:
        UserError: there are none, or a shard that the index lists is missing.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        names = sorted(set(read_index(folder)["weight_map"].values()))
        for name in names:
            if not (folder / name).is_file():
                raise UserError(index, f"shard {name} is missing", fix="download it again")
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
    """Return the contents of the shard index.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / INDEX_NAME
    try:
        index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        index["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(file, "not a shard index", fix="download it again") from error
    return index


def _embedding_split(stored: dict[str, StoredTensor], vocab_size: int, shapes: Shapes) -> int:
    """Return the native embedding row where the second table starts: vocabulary size, or half."""
    for prefix in ("", HUB_PREFIX):
        tables = [stored.get(f"{prefix}{name}") for name in (AI2_EMBEDDING, AI2_NEW_EMBEDDING)]
        rows = [table.shape[0] for table in tables if table is not None and table.shape]
        if len(rows) == 2 and rows[0] == rows[1] and sum(rows) == shapes[NATIVE_EMBEDDING][0]:
            return rows[0]
    return vocab_size


def _places(
    layout: Layout, stored: dict[str, StoredTensor], split: int, shapes: Shapes, folder: Path
) -> dict[str, tuple[StoredRows, ...]]:
    where: dict[str, list[StoredRows]] = {}
    for name, tensor in stored.items():
        parts = tensor_parts(layout, name, shapes, split)
        if parts is None:
            continue
        if tensor.shape != tensor_shape(parts, shapes):
            found = f"{name} has shape {tensor.shape}"
            raise UserError(folder, found, f"{tensor_shape(parts, shapes)} as in config.json")
        offset = 0
        for part in parts:
            where.setdefault(part.name, []).append(StoredRows(part, tensor, offset))
            offset += part.last - part.first
    if layout == "ai2" and AI2_HEAD not in stored:
        num_rows = shapes[HUB_HEAD][0]
        head = NativeRows(HUB_HEAD, 0, num_rows)
        where[HUB_HEAD] = [StoredRows(head, stored[AI2_EMBEDDING], 0)]
    return {name: tuple(sorted(rows, key=lambda r: r.rows.first)) for name, rows in where.items()}
