"""Base checkpoint + what was trained → merged checkpoint, tensor by tensor, file by file.

The base's own safetensors files are walked in hub names; a tensor of which a native part was
changed (`changes`) is rebuilt part by part in float32, every other one is copied. Nothing but one
file's tensors is in memory at a time, the base is never quantised, and the result has exactly the
tensors, shapes and file names of the base. For a LoRA whose B matrices are zero the files' tensors
are bit-equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from molmo_tune.errors import UserError
from molmo_tune.export.changes import Changes
from molmo_tune.export.hub_layout import hub_sources


@dataclass(frozen=True, slots=True)
class TensorAccount:
    """What became of the base's tensors."""

    unchanged: tuple[str, ...]
    merged: tuple[str, ...]


def merge_checkpoint(
    base: Path, changes: Changes, out: Path, dtype: torch.dtype | None
) -> TensorAccount:
    """Write the merged weight files into `out` (which holds nothing else of the base yet).

    Args:
        base: folder of the base checkpoint in hub layout.
        changes: what was trained.
        out: existing folder.
        dtype: of all floating tensors; None keeps each tensor's own.

    Raises:
        UserError: the base is not in hub layout, or the adapter fits other modules or shapes.
    """
    unchanged: list[str] = []
    merged: list[str] = []
    used: set[str] = set()
    for file in weight_files(base):
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in _tensors(file):
            sources = _sources(name, file)
            touched = [source for source in sources if source in changes.names]
            used.update(touched)
            (merged if touched else unchanged).append(name)
            if touched:
                whole = _rebuilt(name, tensor, sources, changes)
                tensor = whole.to(tensor.dtype if dtype is None else dtype)
            elif dtype is not None:
                tensor = tensor.to(dtype)
            tensors[name] = tensor.contiguous()
        save_file(tensors, str(out / file.name), metadata={"format": "pt"})
    missing = sorted(changes.names - used)
    if missing:
        raise UserError(
            base,
            f"has no tensor for {len(missing)} trained ones, the first {missing[0]}",
            "the base that was trained on",
        )
    return TensorAccount(tuple(unchanged), tuple(merged))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order.

    Raises:
        UserError: there are none, or a shard of the index is missing.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        if not single.is_file():
            raise UserError(folder, "no model.safetensors", "a checkpoint with safetensors weights")
        return [single]
    weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    files = [folder / name for name in sorted(set(weight_map.values()))]
    for file in files:
        if not file.is_file():
            raise UserError(index, f"names the shard {file.name}, which is missing")
    return files


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118
            yield name, opened.get_tensor(name)


def _sources(name: str, file: Path) -> tuple[str, ...]:
    sources = hub_sources(name)
    if sources is None:
        raise UserError(file, f"holds {name}", "a Molmo 2 checkpoint in hub layout")
    return sources


def _rebuilt(
    name: str, tensor: torch.Tensor, sources: tuple[str, ...], changes: Changes
) -> torch.Tensor:
    """The tensor with its changed native parts; they are stacked on rows, in order."""
    parts = tensor.split(_rows(name, tensor, sources, changes))
    rebuilt = []
    for source, part in zip(sources, parts, strict=True):
        if source in changes.names:
            if changes.shape(source) != tuple(part.shape):
                raise UserError(
                    name,
                    f"{tuple(part.shape)} in the base, {changes.shape(source)} in what was trained",
                    "the base that was trained on",
                )
            part = changes.changed(source, part)
        rebuilt.append(part.float())
    return torch.cat(rebuilt)


def _rows(name: str, tensor: torch.Tensor, sources: tuple[str, ...], changes: Changes) -> list[int]:
    """Rows of every part; what is left of the tensor is shared equally by the unchanged ones."""
    known = {s: changes.shape(s)[0] for s in sources if s in changes.names}
    left, num_left = tensor.shape[0] - sum(known.values()), len(sources) - len(known)
    if left < 0 or (num_left == 0 and left) or (num_left and left % num_left):
        raise UserError(name, f"{tuple(tensor.shape)} does not match the trained shapes")
    return [known.get(source, left // max(num_left, 1)) for source in sources]
