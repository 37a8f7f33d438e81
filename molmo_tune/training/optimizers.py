"""The optimizer: a rate and a decay per part of the model, and for LoRA+ per matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from molmo_tune.choices import OptimizerName, Schedule
from molmo_tune.errors import UserError
from molmo_tune.model.adapters import part_of, trainable_parameters
from molmo_tune.model.quantization import require_bitsandbytes


@dataclass(frozen=True, slots=True)
class OptimSettings:
    """The optimizer and its schedule.

    ``part_lr`` and ``part_weight_decay`` override ``lr`` and ``weight_decay`` for parts of the
    model (``connector``, ``vision``). ``lora_plus_ratio`` multiplies the rate of B matrices. The
    schedule warms up linearly from zero and falls to ``min_lr_ratio`` of the rate at
    ``max_steps``.
    """

    lr: float
    max_steps: int
    part_lr: dict[str, float]
    part_weight_decay: dict[str, float] = field(default_factory=dict)
    lora_plus_ratio: float | None = None
    name: OptimizerName = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    schedule: Schedule = "cosine"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.1


def build_optimizer(model: torch.nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters of `model`, grouped.

    Raises:
        UserError: an 8-bit optimizer without bitsandbytes, or the paged one without a GPU.
    """
    kind = _optimizer_class(settings.name)
    optimizer: torch.optim.Optimizer = kind(
        parameter_groups(model, settings),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    return optimizer


def parameter_groups(model: torch.nn.Module, settings: OptimSettings) -> list[dict[str, Any]]:
    """Groups of equal part, rate and decay; each names its part."""
    groups: dict[tuple[str, bool], list[Any]] = {}
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


def clip_parts(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Clip the gradients of each part of the model by their own norm, as Molmo 2 was trained."""
    parts: dict[str, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        parts.setdefault(group["name"], []).extend(group["params"])
    for parameters in parts.values():
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def _optimizer_class(name: OptimizerName) -> Any:
    if name == "adamw":
        return torch.optim.AdamW
    require_bitsandbytes("optim.name", name)
    import bitsandbytes

    if name == "paged_adamw_8bit":
        if not torch.cuda.is_available():
            raise UserError("optim.name", f"{name} without a GPU", "one", "use adamw_8bit or adamw")
        return bitsandbytes.optim.PagedAdamW8bit
    return bitsandbytes.optim.AdamW8bit
