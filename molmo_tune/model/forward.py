"""One forward pass: a `Batch` in, last hidden states out, attention exact.

The stock `forward` refuses images and videos together, keeps all vision layers and knows neither
packs nor trees. So the three towers of the native classes are called one after the other here:
vision and connector (`vision.encode_vision`), embedding with the features *added* to the
`<im_patch>` rows, and the language model under our own mask (`attention.dense_mask`).
"""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.encoding.encoded import Batch
from molmo_tune.model.attention import dense_mask
from molmo_tune.model.vision import encode_vision


def hidden_states(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states ``(B, L, d)`` of `Molmo2ForConditionalGeneration` for a batch."""
    body = model.model
    embeddings = body.language_model.embed_tokens(batch.input_ids)
    if len(batch.patches):
        features = encode_vision(body, batch.patches, batch.pooling)
        embeddings = add_features(
            embeddings, features, batch.input_ids == model.config.image_patch_id
        )
    mask = dense_mask(batch.example_ids, batch.branch_ids, batch.is_vision)
    outputs = body.language_model(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    hidden: torch.Tensor = outputs.last_hidden_state
    return hidden


def add_features(
    embeddings: torch.Tensor, features: torch.Tensor, is_patch: torch.Tensor
) -> torch.Tensor:
    """Embeddings ``(B, L, d)`` plus features ``(T, d)`` at the T true places of ``(B, L)``."""
    num_patches = int(is_patch.sum())
    if num_patches != len(features):
        raise ValueError(f"{num_patches} <im_patch> tokens, but {len(features)} vision features")
    placed = torch.zeros_like(embeddings)
    placed[is_patch] = features.to(embeddings.dtype)
    return embeddings + placed
