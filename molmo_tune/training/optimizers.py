"""The optimizer: AdamW with a learning rate and a decay per component, and for LoRA+ per matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch

from molmo_tune.choices import OptimizerName, Schedule
from molmo_tune.errors import UserError
from molmo_tune.model.adapters import part_of, trainable_parameters
from molmo_tune.model.quantization import require_bitsandbytes
from molmo_tune.recipe.sections import Recipe

WARMUP_FRACTION = 0.03
"""Warmup steps per optimizer step of the run, if the recipe sets none."""


@dataclass(frozen=True, slots=True)
class OptimSettings:
    """The optimizer and its schedule.

    ``part_lr`` and ``part_weight_decay`` override ``lr`` and ``weight_decay`` for components
    (``connector``, ``vision``). ``lora_plus_ratio`` multiplies the learning rate of B matrices. The
    learning rate warms up linearly and decays to ``min_lr_ratio`` of its peak at ``max_steps``.
    """

    lr: float
    max_steps: int
    part_lr: Mapping[str, float]
    part_weight_decay: Mapping[str, float] = field(default_factory=dict)
    lora_plus_ratio: float | None = None
    name: OptimizerName = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    schedule: Schedule = "cosine"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.1


class ParameterGroup(TypedDict):
    """One of PyTorch's parameter groups; ``name`` is the component."""

    params: list[torch.nn.Parameter]
    lr: float
    weight_decay: float
    name: str


def optim_settings(recipe: Recipe) -> OptimSettings:
    """Return the recipe's optimizer settings, with the length of its run."""
    optim, max_steps = recipe.optim, recipe.trainer.max_steps
    rates = {"connector": optim.lr_connector, "vision": optim.lr_vision}
    decays = {"connector": optim.weight_decay_connector, "vision": optim.weight_decay_vision}
    warmup = optim.warmup_steps
    return OptimSettings(
        lr=optim.lr,
        max_steps=max_steps,
        part_lr={part: rate for part, rate in rates.items() if rate is not None},
        part_weight_decay={part: decay for part, decay in decays.items() if decay is not None},
        lora_plus_ratio=optim.lora_plus_ratio,
        name=optim.name,
        weight_decay=optim.weight_decay,
        betas=optim.betas,
        eps=optim.eps,
        schedule=optim.schedule,
        warmup_steps=round(WARMUP_FRACTION * max_steps) if warmup is None else warmup,
        min_lr_ratio=optim.min_lr_ratio,
    )


def build_optimizer(model: torch.nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters of `model`, in groups.

    Raises:
        UserError: an 8-bit optimizer without bitsandbytes, or the paged one without a GPU.
    """
    optimizer_class = _optimizer_class(settings.name)
    optimizer: torch.optim.Optimizer = optimizer_class(
        parameter_groups(model, settings),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    return optimizer


def parameter_groups(model: torch.nn.Module, settings: OptimSettings) -> list[ParameterGroup]:
    """Group the trainable parameters by component, and under LoRA+ by matrix."""
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trainable_parameters(model):
        is_fast = settings.lora_plus_ratio is not None and ".lora_B." in name
        groups.setdefault((part_of(name), is_fast), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.part_lr.get(part, settings.lr)
            * (settings.lora_plus_ratio or 1.0 if is_fast else 1.0),
            "weight_decay": settings.part_weight_decay.get(part, settings.weight_decay),
            "name": part,
        }
        for (part, is_fast), parameters in groups.items()
    ]


def _optimizer_class(name: OptimizerName) -> Any:
    if name == "adamw":
        return torch.optim.AdamW
    require_bitsandbytes("optim.name", name)
    import bitsandbytes

    if name == "paged_adamw_8bit":
        if not torch.cuda.is_available():
            fix = "set optim.name: adamw_8bit or adamw"
            raise UserError("optim.name", f"{name} without a GPU", "a GPU", fix)
        return bitsandbytes.optim.PagedAdamW8bit
    return bitsandbytes.optim.AdamW8bit
