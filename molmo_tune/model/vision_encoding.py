"""Images and frames → one feature per `<im_patch>` token, a bounded number of crops at a time.

The stock code keeps the output of every vision layer for the whole batch, although the connector
reads two of them: 128 frames waste about 5 GB. Here crops go through the tower in chunks and only
these two layers are kept; a frozen tower builds no graph. Images and videos can be mixed, because
after patching they differ only in their pooling rows.

    patches (C, P, D) → tower → two layers, concatenated (C·P, 2·width) → pooling (T, K) → (T, d)
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from molmo_tune.model.molmo import MolmoBody

CROPS_PER_CHUNK = 16


def encode_vision(
    body: MolmoBody, patches: torch.Tensor, pooling: torch.Tensor, chunk: int = CROPS_PER_CHUNK
) -> torch.Tensor:
    """Return vision features ``(T, d_model)`` in token order.

    Args:
        body: `Molmo2Model`, the model without its LM head.
        patches: ``(C, P, D)`` floats in [-1, 1].
        pooling: ``(T, K)`` numbers of patches in the flattened ``C·P``, -1 = none.
        chunk: crops per forward pass of the tower; without a graph, memory grows with it (and the
            crops of one image) but not with C.
    """
    rows_of, pooled = [], []
    for start, end, rows in _groups(pooling, len(patches), patches.shape[1], chunk):
        features = _tower_features(body, patches[start:end], chunk)
        shift = start * patches.shape[1]
        own = torch.where(pooling[rows] < 0, -1, pooling[rows] - shift)
        projected: BaseModelOutput = body.multi_modal_projector(features, own)
        pooled.append(projected.last_hidden_state)
        rows_of.append(rows)
    return torch.cat(pooled)[torch.cat(rows_of).argsort()]


def _groups(
    pooling: torch.Tensor, num_crops: int, num_patches: int, chunk: int
) -> list[tuple[int, int, torch.Tensor]]:
    """Split the crops into runs ``(start, end, rows)`` that no pooling row crosses.

    Windows of a tiled image span crops, those of a frame stay within it; so a run ends at the first
    gap after `chunk` crops.
    """
    crops = torch.div(pooling, num_patches, rounding_mode="floor")
    last = crops.amax(1)
    first = torch.where(crops < 0, num_crops, crops).amin(1)
    reaches = torch.zeros(num_crops + 1, dtype=torch.long, device=pooling.device)
    one = torch.ones_like(first)
    reaches.index_add_(0, first + 1, one).index_add_(0, last + 1, -one)
    gaps = torch.nonzero(reaches.cumsum(0) == 0).flatten().tolist()  # gap k is before crop k
    groups, start = [], 0
    while start < num_crops:
        end = next((gap for gap in gaps if gap >= start + chunk), num_crops)
        groups.append((start, end, torch.nonzero((first >= start) & (first < end)).flatten()))
        start = end
    return groups


def _tower_features(body: MolmoBody, patches: torch.Tensor, chunk: int) -> torch.Tensor:
    """Compute the connector's input ``(C, P, 2·width)``, `chunk` crops at a time."""
    trainable = any(p.requires_grad for p in body.vision_tower.parameters())
    with torch.set_grad_enabled(torch.is_grad_enabled() and trainable):
        return torch.cat([_connector_input(body, part) for part in patches.split(chunk)])


def _connector_input(body: MolmoBody, patches: torch.Tensor) -> torch.Tensor:
    """Compute the two layers that the connector reads, concatenated: ``(C, P, 2·width)``."""
    tower = body.vision_tower
    wanted = [
        _layer_number(n, tower.layers) for n in body.config.adapter_config.vision_feature_layer
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
