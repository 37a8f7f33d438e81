"""The weight updates of a run, read from its files, by native tensor name.

All kinds answer one question: given rows of a base tensor, what are they after training? LoRA
(rsLoRA, PiSSA as saved) adds scale·B·A; DoRA also rescales each row to its trained norm; full
fine-tuning replaces the tensor. All arithmetic is float32 and row by row, so tensors of any size
are updated in pieces. Matrices are read when their tensor is merged.

Limitations: native names only; fused tensors and the names of released checkpoints are `merge`'s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from molmo_tune.errors import UserError
from molmo_tune.export.files.safetensors_files import StoredTensor, TensorFile, read_tensor_file
from molmo_tune.model.adapters import WEIGHTS_FILE

PEFT_PREFIX = "base_model.model."
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
RowUpdate = Callable[[torch.Tensor, int], torch.Tensor]
"""(rows of the base, index of the first) → the trained rows, float32. Called from threads."""


class WeightUpdates(Protocol):
    """Updates by native tensor name (``….weight``)."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the trained tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a trained tensor."""

    def row_update(self, name: str) -> RowUpdate:
        """Return the function that updates its rows."""

    def is_zero(self, name: str) -> bool:
        """Whether the update is known to be zero: an adapter that was never trained."""


@dataclass(frozen=True, slots=True)
class NoUpdates:
    """No updates: the base is converted as it is."""

    names: frozenset[str] = frozenset()

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightUpdates`."""
        raise KeyError(name)

    def row_update(self, name: str) -> RowUpdate:
        """See `WeightUpdates`."""
        raise KeyError(name)

    def is_zero(self, name: str) -> bool:
        """See `WeightUpdates`."""
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class LoraUpdates:
    """An adapter by native module name.

    ``pairs`` are A ``(rank, in)`` and B ``(out, rank)``; the update is ``scale * B @ A``.
    ``magnitudes`` are DoRA's trained row norms ``(out,)``.
    """

    pairs: dict[str, tuple[StoredTensor, StoredTensor]]
    scale: float
    magnitudes: dict[str, StoredTensor]

    @property
    def names(self) -> frozenset[str]:
        """See `WeightUpdates`."""
        return frozenset(f"{module}.weight" for module in self.pairs)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightUpdates`."""
        a, b = self.pairs[name.removesuffix(".weight")]
        return b.shape[0], a.shape[1]

    def matrices(self, module: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A and B of a module in float32.

        Raises:
            UserError: they contain NaN or infinity.
        """
        a, b = (stored.rows().float() for stored in self.pairs[module])
        if not (a.isfinite().all() and b.isfinite().all()):
            raise UserError(self.pairs[module][0].file, f"{module} contains NaN or infinity")
        return a, b

    def row_update(self, name: str) -> RowUpdate:
        """See `WeightUpdates`."""
        module = name.removesuffix(".weight")
        a, b = self.matrices(module)
        magnitude = self.magnitudes.get(module)
        norms = None if magnitude is None else magnitude.rows().float()
        is_zero = not b.any()

        def update(base: torch.Tensor, first: int) -> torch.Tensor:
            rows = slice(first, first + len(base))
            trained: torch.Tensor = base.to(torch.float32, copy=True)  # updated in place
            if not is_zero:  # adding zeros would turn -0.0 into 0.0
                trained.addmm_(b[rows], a, alpha=self.scale)
            if norms is not None:
                trained *= (norms[rows] / torch.linalg.norm(trained, dim=1))[:, None]
            return trained

        return update

    def is_zero(self, name: str) -> bool:
        """See `WeightUpdates`; False with DoRA, whose norms are not compared with the base's."""
        module = name.removesuffix(".weight")
        a, b = self.matrices(module)
        return module not in self.magnitudes and not (a.any() and b.any())


@dataclass(frozen=True, slots=True)
class FullWeights:
    """Tensors of a full fine-tune."""

    tensors: dict[str, StoredTensor]

    @property
    def names(self) -> frozenset[str]:
        """See `WeightUpdates`."""
        return frozenset(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightUpdates`."""
        return self.tensors[name].shape

    def row_update(self, name: str) -> RowUpdate:
        """See `WeightUpdates`."""
        stored = self.tensors[name]

        def update(base: torch.Tensor, first: int) -> torch.Tensor:
            rows = stored.rows(first, first + len(base)).float()
            if not rows.isfinite().all():
                raise UserError(stored.file, f"{name} contains NaN or infinity")
            return rows

        return update

    def is_zero(self, name: str) -> bool:
        """See `WeightUpdates`; always False: the tensors are not compared with the base's."""
        return False


def read_updates(folder: Path) -> WeightUpdates:
    """Read the weight updates of a run from its adapter folder.

    Raises:
        UserError: a file is missing, or the adapter is not one that can be merged.
    """
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        return read_lora(folder)
    return FullWeights({tensor.name: tensor for tensor in read_tensor_file(weights).tensors})


def read_lora(folder: Path) -> LoraUpdates:
    """Read a PEFT adapter.

    Raises:
        UserError: a file is missing, it is not LoRA, its ranks disagree, or it holds other weights.
    """
    config_file, weights_file = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    for file in (config_file, weights_file):
        if not file.is_file():
            raise UserError(file, "no such file", "a PEFT adapter folder")
    config = _lora_config(config_file)
    halves, magnitudes = _halves(read_tensor_file(weights_file))
    if any(half.keys() != {"A", "B"} for half in halves.values()):
        raise UserError(weights_file, "has an A or B matrix without its partner")
    pairs = {module: (half["A"], half["B"]) for module, half in halves.items()}
    rank = config["r"]
    for module, (a, b) in pairs.items():
        if a.shape[0] != rank or b.shape[1] != rank:
            raise UserError(weights_file, f"{module} has rank {a.shape[0]}", f"rank {rank}")
    if config.get("use_dora") and magnitudes.keys() != pairs.keys():
        raise UserError(weights_file, "lacks DoRA magnitudes")
    root = math.sqrt(rank) if config.get("use_rslora") else rank
    return LoraUpdates(pairs, config["lora_alpha"] / root, magnitudes)


def _halves(
    file: TensorFile,
) -> tuple[dict[str, dict[str, StoredTensor]], dict[str, StoredTensor]]:
    """Return A and B by module, and DoRA's magnitudes by module."""
    halves: dict[str, dict[str, StoredTensor]] = {}
    magnitudes: dict[str, StoredTensor] = {}
    for tensor in file.tensors:
        module, _, part = tensor.name.removeprefix(PEFT_PREFIX).rpartition(".lora_")
        if part in ("A.weight", "B.weight"):
            halves.setdefault(module, {})[part[0]] = tensor
        elif part.startswith("magnitude_vector"):
            magnitudes[module] = tensor
        else:
            raise UserError(file.path, f"contains {tensor.name}", "LoRA or DoRA matrices only")
    return halves, magnitudes


def _lora_config(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise UserError(
            file, "not a plain LoRA adapter", "LoRA, rsLoRA or DoRA, no modules_to_save"
        )
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UserError(file, "sets a rank or alpha per module", "one rank and one alpha")
    return config
