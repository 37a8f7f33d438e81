"""Gradient checkpointing per component: layers recompute their activations in the backward pass.

Always non-reentrant: the reentrant kind, still transformers' default, leaves adapters without a
gradient when a layer's input needs none, as in the first layer of a vision tower.
"""

from __future__ import annotations

from collections.abc import Collection

from molmo_tune.model.molmo import Molmo

PARTS = {"language": "language_model", "vision": "vision_tower"}


def checkpoint_layers(model: Molmo, parts: Collection[str]) -> None:
    """Turn checkpointing on in the layers of the named components, and off in all others.

    It acts only in training mode.

    Args:
        model: `Molmo2ForConditionalGeneration`.
        parts: names in `PARTS`.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    wanted = {f"{PARTS[part]}." for part in parts}
    for name, module in model.named_modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = any(part in f"{name}." for part in wanted)
