"""Images and frames → one feature per `<im_patch>` token, a bounded number of crops at a time.

The stock path keeps the output of every vision layer for the whole batch, although the connector
reads two of them: 128 frames cost about 5 GB for nothing. Here crops go through the tower in chunks
and only the wanted layers are kept; without trainable parts no graph is built. Images and videos
may be mixed freely, since after patching they differ in nothing but the pooling rows.

    patches (C, P, D) → tower → wanted layers, concatenated (C·P, 2·width) → pooling (T, K) → (T, d)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

CROPS_PER_CHUNK = 16


def encode_vision(
    model: Any, patches: torch.Tensor, pooling: torch.Tensor, chunk: int = CROPS_PER_CHUNK
) -> torch.Tensor:
    """Vision features ``(T, d_model)`` in token order.

    Args:
        model: `Molmo2Model` (the body, without the LM head).
        patches: ``(C, P, D)`` floats in [-1, 1].
        pooling: ``(T, K)`` numbers of patches in the flattened ``C·P``, -1 = none.
        chunk: crops per pass through the tower; memory grows with it, not with C.
    """
    trainable = any(p.requires_grad for p in model.vision_tower.parameters())
    with torch.set_grad_enabled(torch.is_grad_enabled() and trainable):
        chunks = [_tower_features(model, part) for part in patches.split(chunk)]
        features = torch.cat(chunks)
    projected: BaseModelOutput = model.multi_modal_projector(features, pooling)
    hidden: torch.Tensor = projected.last_hidden_state
    return hidden


def _tower_features(model: Any, patches: torch.Tensor) -> torch.Tensor:
    """The two layers the connector reads, side by side: ``(C, P, 2·width)``."""
    tower = model.vision_tower
    wanted = [
        _layer_number(n, tower.layers) for n in model.config.adapter_config.vision_feature_layer
    ]
    hidden = tower.patch_embedding(patches.to(tower.dtype))
    hidden = hidden + tower.positional_embedding[None].to(hidden)
    kept: dict[int, torch.Tensor] = {}
    for number, layer in enumerate(tower.layers):
        hidden = layer(hidden, None)
        if number in wanted:
            kept[number] = hidden
    return torch.cat([kept[number] for number in wanted], dim=-1)


def _layer_number(number: int, layers: nn.ModuleList) -> int:
    return number if number >= 0 else len(layers) + number
