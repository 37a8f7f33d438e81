"""Gradient clipping by component: language model, connector and vision tower, each by its own norm.

Molmo 2 was trained this way. One norm over everything would let the largest component decide how
far the others move.
"""

from __future__ import annotations

import torch


def clip_components(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Scale the gradients of each component to a norm of at most `max_norm`, in place.

    The component is the ``name`` of a parameter group (`optimizers.parameter_groups`).
    """
    components: dict[str, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        components.setdefault(group["name"], []).extend(group["params"])
    for parameters in components.values():
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
