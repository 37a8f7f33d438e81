"""A LoRA that has an effect without training.

PEFT starts B at zero: the adapter then changes nothing and half of the gradients vanish, so a test
of logits, gradients or exports would pass with the adapter left out. Here B is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from molmo_tune.model.adapters import Part, add_adapter, trainable_parameters

EVERY_PART: tuple[Part, ...] = ("language", "connector", "vision")


def drawn_lora(base: Any, targets: Sequence[Part] = EVERY_PART, *, std: float = 0.02) -> Any:
    """`base` with a LoRA of rank 4 whose B matrices are drawn (always the same)."""
    torch.manual_seed(0)
    model = add_adapter(base, method="lora", rank=4, alpha=8, dropout=0.0, targets=targets)
    return draw(model, std=std)


def draw(model: Any, *, std: float = 0.02) -> Any:
    """Draw the B matrices, and for DoRA lengths of rows a few per cent off; the same model."""
    torch.manual_seed(0)
    for name, parameter in trainable_parameters(model):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
        elif "magnitude" in name:
            parameter.data *= 1 + 0.05 * torch.rand_like(parameter)
    return model
