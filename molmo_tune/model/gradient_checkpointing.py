"""Gradient checkpointing per part: a layer's activations are computed again on the way back.

Always the non-reentrant kind: the reentrant one, still transformers' default, leaves adapters
without gradient when a layer's input needs none, as the first layer of a vision tower's does.
"""

from __future__ import annotations

from collections.abc import Collection

from molmo_tune.model.molmo import Molmo

PARTS = {"language": "language_model", "vision": "vision_tower"}


def checkpoint_layers(model: Molmo, parts: Collection[str]) -> None:
    """Switch it on in the layers of the named parts of `Molmo2ForConditionalGeneration`, and off
    in the others. It only acts in training mode.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    wanted = {f"{PARTS[part]}." for part in parts}
    for name, module in model.named_modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = any(part in f"{name}." for part in wanted)
