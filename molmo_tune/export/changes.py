"""What a fine-tune changed, read from its files: native tensor names, and how each is changed.

Three kinds, one question to each: given a tensor of the base, what is it now? LoRA (rsLoRA, PiSSA
as saved) adds scale·B·A; DoRA also gives every row its trained length; weights trained whole take
the tensor's place. All arithmetic is float32.

What it does not do: know the names in released checkpoints, or fused tensors (`merge`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from molmo_tune.errors import UserError
from molmo_tune.model.adapters import WEIGHTS_FILE

_PREFIX = "base_model.model."


class Changes(Protocol):
    """Changes by native tensor name (``….weight``)."""

    @property
    def names(self) -> frozenset[str]:
        """Tensors that are changed."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a changed tensor."""

    def changed(self, name: str, base: torch.Tensor) -> torch.Tensor:
        """The tensor now, float32, given the base's."""


@dataclass(frozen=True, slots=True)
class LoraChanges:
    """An adapter's matrices by native module name; ``magnitudes`` are DoRA's lengths of rows."""

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scale: float
    magnitudes: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """See `Changes`."""
        return frozenset(f"{module}.weight" for module in self.pairs)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Changes`."""
        a, b = self.pairs[name.removesuffix(".weight")]
        return b.shape[0], a.shape[1]

    def changed(self, name: str, base: torch.Tensor) -> torch.Tensor:
        """See `Changes`."""
        module = name.removesuffix(".weight")
        a, b = (matrix.float() for matrix in self.pairs[module])
        whole: torch.Tensor = base.float() + self.scale * (b @ a)
        if module not in self.magnitudes:
            return whole
        lengths = whole.norm(dim=1)
        scaled: torch.Tensor = whole * (self.magnitudes[module].float() / lengths)[:, None]
        return scaled


@dataclass(frozen=True, slots=True)
class WholeChanges:
    """Tensors trained whole."""

    tensors: dict[str, torch.Tensor]

    @property
    def names(self) -> frozenset[str]:
        """See `Changes`."""
        return frozenset(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Changes`."""
        return tuple(self.tensors[name].shape)

    def changed(self, name: str, base: torch.Tensor) -> torch.Tensor:
        """See `Changes`."""
        return self.tensors[name].float()


def read_changes(folder: Path) -> Changes:
    """Read what a run trained.

    Raises:
        UserError: missing files, another method, or weights beside the LoRA matrices.
    """
    whole = folder / WEIGHTS_FILE
    return WholeChanges(load_file(str(whole))) if whole.is_file() else _read_lora(folder)


def _read_lora(folder: Path) -> LoraChanges:
    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise UserError(file, "no such file", "a PEFT adapter folder")
    config = _lora_config(config_file)
    halves: dict[str, dict[str, torch.Tensor]] = {}
    magnitudes: dict[str, torch.Tensor] = {}
    with safe_open(weights_file, "pt") as file:
        for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
            module, _, part = name.removeprefix(_PREFIX).rpartition(".lora_")
            if part in ("A.weight", "B.weight"):
                halves.setdefault(module, {})[part[0]] = file.get_tensor(name)
            elif part.startswith("magnitude_vector"):
                magnitudes[module] = file.get_tensor(name)
            else:
                raise UserError(weights_file, f"holds {name}", "LoRA or DoRA matrices only")
    if any(half.keys() != {"A", "B"} for half in halves.values()):
        raise UserError(weights_file, "holds an A or B matrix without its partner")
    pairs = {module: (half["A"], half["B"]) for module, half in halves.items()}
    rank = config["r"]
    for module, (a, b) in pairs.items():
        if a.shape[0] != rank or b.shape[1] != rank:
            raise UserError(weights_file, f"{module} has rank {a.shape[0]}", f"rank {rank}")
    if config.get("use_dora") and magnitudes.keys() != pairs.keys():
        raise UserError(weights_file, "lacks magnitudes that DoRA needs")
    root = math.sqrt(rank) if config.get("use_rslora") else rank
    return LoraChanges(pairs, config["lora_alpha"] / root, magnitudes)


def _lora_config(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise UserError(
            file, "not a plain LoRA adapter", "LoRA, rsLoRA or DoRA, no modules_to_save"
        )
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UserError(file, "has a rank or alpha per module", "one rank and one alpha")
    return config
