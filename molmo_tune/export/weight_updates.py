"""What a fine-tune changed, read from its files: native tensor names, and how each is changed.

Three kinds, one question to each: given rows of a tensor of the base, what are they now? LoRA
(rsLoRA, PiSSA as saved) adds scale·B·A; DoRA also gives every row its trained length; weights
trained whole take the tensor's place. All arithmetic is float32 and works row by row, so that a
tensor of any size can be changed in pieces. Matrices are read when their tensor's turn comes.

What it does not do: know the names in released checkpoints, or fused tensors (`merge`).
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
from molmo_tune.export.files.tensor_files import StoredTensor, TensorFile, read_tensor_file
from molmo_tune.model.adapters import WEIGHTS_FILE

PEFT_PREFIX = "base_model.model."
RowChange = Callable[[torch.Tensor, int], torch.Tensor]
"""(rows of the base, number of the first one) → the rows now, float32. Threads call it at once."""


class WeightUpdates(Protocol):
    """Changes by native tensor name (``….weight``)."""

    @property
    def names(self) -> frozenset[str]:
        """Tensors that are changed."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a changed tensor."""

    def row_change(self, name: str) -> RowChange:
        """How its rows are changed."""

    def is_zero(self, name: str) -> bool:
        """Whether the change is known to be none: an adapter that was never trained."""


@dataclass(frozen=True, slots=True)
class NoUpdates:
    """The base as it is: what a conversion between layouts applies."""

    names: frozenset[str] = frozenset()

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightUpdates`."""
        raise KeyError(name)

    def row_change(self, name: str) -> RowChange:
        """See `WeightUpdates`."""
        raise KeyError(name)

    def is_zero(self, name: str) -> bool:
        """See `WeightUpdates`."""
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class LoraUpdates:
    """An adapter by native module name; ``magnitudes`` are DoRA's lengths of rows.

    ``pairs`` hold A ``(rank, in)`` and B ``(out, rank)``; the change is ``scale * B @ A``.
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
        """A and B of a module in float32.

        Raises:
            UserError: they hold numbers that are not finite.
        """
        a, b = (stored.rows().float() for stored in self.pairs[module])
        if not (a.isfinite().all() and b.isfinite().all()):
            raise UserError(self.pairs[module][0].file, f"{module} holds NaN or infinity")
        return a, b

    def row_change(self, name: str) -> RowChange:
        """See `WeightUpdates`."""
        module = name.removesuffix(".weight")
        a, b = self.matrices(module)
        magnitude = self.magnitudes.get(module)
        lengths = None if magnitude is None else magnitude.rows().float()
        untouched = not b.any()

        def change(base: torch.Tensor, first: int) -> torch.Tensor:
            rows = slice(first, first + len(base))
            whole: torch.Tensor = base.to(torch.float32, copy=True)  # then changed in place
            if not untouched:  # adding zeros would turn a minus zero into a plus zero
                whole.addmm_(b[rows], a, alpha=self.scale)
            if lengths is not None:
                whole *= (lengths[rows] / torch.linalg.norm(whole, dim=1))[:, None]
            return whole

        return change

    def is_zero(self, name: str) -> bool:
        """See `WeightUpdates`; DoRA's lengths are not compared with the base's."""
        module = name.removesuffix(".weight")
        a, b = self.matrices(module)
        return module not in self.magnitudes and not (a.any() and b.any())


@dataclass(frozen=True, slots=True)
class FullWeights:
    """Tensors trained whole."""

    tensors: dict[str, StoredTensor]

    @property
    def names(self) -> frozenset[str]:
        """See `WeightUpdates`."""
        return frozenset(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightUpdates`."""
        return self.tensors[name].shape

    def row_change(self, name: str) -> RowChange:
        """See `WeightUpdates`."""
        stored = self.tensors[name]

        def change(base: torch.Tensor, first: int) -> torch.Tensor:
            rows = stored.rows(first, first + len(base)).float()
            if not rows.isfinite().all():
                raise UserError(stored.file, f"{name} holds NaN or infinity")
            return rows

        return change

    def is_zero(self, name: str) -> bool:
        """See `WeightUpdates`; whole tensors are not compared with the base's."""
        return False


def read_updates(folder: Path) -> WeightUpdates:
    """Read what a run trained.

    Raises:
        UserError: missing files, another method, or weights beside the LoRA matrices.
    """
    whole = folder / WEIGHTS_FILE
    if not whole.is_file():
        return read_lora(folder)
    return FullWeights({tensor.name: tensor for tensor in read_tensor_file(whole).tensors})


def read_lora(folder: Path) -> LoraUpdates:
    """Read a PEFT adapter.

    Raises:
        UserError: missing files, another method, ranks that disagree, or other weights.
    """
    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise UserError(file, "no such file", "a PEFT adapter folder")
    config = _lora_config(config_file)
    halves, magnitudes = _halves(read_tensor_file(weights_file))
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
    return LoraUpdates(pairs, config["lora_alpha"] / root, magnitudes)


def _halves(
    file: TensorFile,
) -> tuple[dict[str, dict[str, StoredTensor]], dict[str, StoredTensor]]:
    """A and B by module, and DoRA's magnitudes by module."""
    halves: dict[str, dict[str, StoredTensor]] = {}
    magnitudes: dict[str, StoredTensor] = {}
    for tensor in file.tensors:
        module, _, part = tensor.name.removeprefix(PEFT_PREFIX).rpartition(".lora_")
        if part in ("A.weight", "B.weight"):
            halves.setdefault(module, {})[part[0]] = tensor
        elif part.startswith("magnitude_vector"):
            magnitudes[module] = tensor
        else:
            raise UserError(file.path, f"holds {tensor.name}", "LoRA or DoRA matrices only")
    return halves, magnitudes


def _lora_config(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise UserError(
            file, "not a plain LoRA adapter", "LoRA, rsLoRA or DoRA, no modules_to_save"
        )
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UserError(file, "has a rank or alpha per module", "one rank and one alpha")
    return config
