"""Base checkpoint + LoRA adapter → merged checkpoint, tensor by tensor, file by file.

The base's own safetensors files are walked in hub names; a tensor whose native parts carry an
adapter gets their deltas added in float32, every other one is copied. Nothing but one tensor is in
memory at a time, the base is never quantised, and the result has exactly the tensors, shapes and
file names of the base. For an adapter whose B matrices are zero the files' tensors are bit-equal.

What it does not do: methods other than LoRA and rsLoRA, or weights saved whole by the adapter; both
are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from molmo_tune.errors import UserError
from molmo_tune.export.hub_layout import hub_sources

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """An adapter's matrices by native module name; delta = scale · B @ A."""

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scale: float

    def delta(self, module: str) -> torch.Tensor | None:
        """``(out, in)`` float32 for a native module, or None when it carries no adapter."""
        pair = self.pairs.get(module)
        if pair is None:
            return None
        a, b = (matrix.float() for matrix in pair)
        return self.scale * (b @ a)


@dataclass(frozen=True, slots=True)
class TensorAccount:
    """What became of the base's tensors."""

    unchanged: tuple[str, ...]
    merged: tuple[str, ...]


def read_lora(folder: Path) -> LoraWeights:
    """Read a PEFT adapter.

    Raises:
        UserError: missing files, another method, or weights beside the LoRA matrices.
    """
    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise UserError(file, "no such file", "a PEFT adapter folder")
    config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("modules_to_save"):
        raise UserError(
            config_file, "not a plain LoRA adapter", "LoRA or rsLoRA, no modules_to_save"
        )
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UserError(config_file, "has a rank or alpha per module", "one rank and one alpha")
    halves: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(weights_file, "pt") as file:
        for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
            module, _, half = name.removeprefix(_PREFIX).rpartition(".lora_")
            if half not in ("A.weight", "B.weight"):
                raise UserError(weights_file, f"holds {name}", "LoRA matrices only")
            halves.setdefault(module, {})[half[0]] = file.get_tensor(name)
    rank = config["r"]
    root = math.sqrt(rank) if config.get("use_rslora") else rank
    pairs = {module: (half["A"], half["B"]) for module, half in halves.items()}
    for module, (a, b) in pairs.items():
        if a.shape[0] != rank or b.shape[1] != rank:
            raise UserError(weights_file, f"{module} has rank {a.shape[0]}", f"rank {rank}")
    return LoraWeights(pairs, config["lora_alpha"] / root)


def merge_checkpoint(
    base: Path, lora: LoraWeights, out: Path, dtype: torch.dtype | None
) -> TensorAccount:
    """Write the merged weight files into `out` (which holds nothing else of the base yet).

    Args:
        base: folder of the base checkpoint in hub layout.
        lora: the adapter.
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
            modules = _modules_with_adapter(name, lora, file)
            used.update(modules)
            (merged if modules else unchanged).append(name)
            if modules:
                whole = tensor.float() + _stacked_delta(name, lora, tensor)
                tensor = whole.to(tensor.dtype if dtype is None else dtype)
            elif dtype is not None:
                tensor = tensor.to(dtype)
            tensors[name] = tensor.contiguous()
        save_file(tensors, str(out / file.name), metadata={"format": "pt"})
    missing = sorted(set(lora.pairs) - used)
    if missing:
        raise UserError(
            base,
            f"has no tensor for {len(missing)} adapted modules, the first {missing[0]}",
            "the base the adapter was trained on",
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


def _modules_with_adapter(name: str, lora: LoraWeights, file: Path) -> list[str]:
    sources = hub_sources(name)
    if sources is None:
        raise UserError(file, f"holds {name}", "a Molmo 2 checkpoint in hub layout")
    if not name.endswith(".weight"):
        return []
    modules = [source.removesuffix(".weight") for source in sources]
    return [module for module in modules if module in lora.pairs]


def _stacked_delta(name: str, lora: LoraWeights, tensor: torch.Tensor) -> torch.Tensor:
    """Deltas of the native parts of a hub tensor, stacked on rows; zero rows where none is."""
    sources = hub_sources(name) or ()
    deltas = [lora.delta(source.removesuffix(".weight")) for source in sources]
    free = tensor.shape[0] - sum(len(delta) for delta in deltas if delta is not None)
    num_free = sum(delta is None for delta in deltas)
    if (num_free == 0 and free) or (num_free and free % num_free):
        raise UserError(name, f"{tuple(tensor.shape)} does not match the adapter's shapes")
    rows = [
        torch.zeros(free // num_free, tensor.shape[1]) if delta is None else delta
        for delta in deltas
    ]
    stacked = torch.cat(rows)
    if stacked.shape != tensor.shape:
        raise UserError(
            name,
            f"{tuple(tensor.shape)} in the base, {tuple(stacked.shape)} in the adapter",
            "the base the adapter was trained on",
        )
    return stacked
