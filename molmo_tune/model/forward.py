"""One forward pass: a `Batch` in, last hidden states out, attention exact.

The stock `forward` refuses images and videos together, keeps the output of every vision layer, and
supports neither packs nor trees. So the native submodules are called one after the other: vision
tower and connector (`vision_encoding`), the embedding with the features *added* to the `<im_patch>`
rows, and the decoder under the attention rule (`attention_backends`).
"""

from __future__ import annotations

import torch

from molmo_tune.encoding.encoded import Batch
from molmo_tune.media.array_cache import ArrayCache
from molmo_tune.model.attention_backends import attention_inputs
from molmo_tune.model.feature_cache import features_of
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.vision_encoding import encode_vision


def hidden_states(model: Molmo, batch: Batch, cache: ArrayCache | None = None) -> torch.Tensor:
    """Return the last hidden states ``(B, L, d)`` of `Molmo2ForConditionalGeneration` for a batch.

    With a cache of vision features, those it contains are not computed (`feature_cache`).
    """
    if cache is not None:
        return decode(model, batch, features_of(model.model, batch, cache))
    has_vision = len(batch.patches) > 0
    features = encode_vision(model.model, batch.patches, batch.pooling) if has_vision else None
    return decode(model, batch, features)


def decode(model: Molmo, batch: Batch, features: torch.Tensor | None) -> torch.Tensor:
    """Return the decoder's last hidden states ``(B, L, d)``, given vision features ``(T, d)``."""
    decoder = model.model.language_model
    embeddings = decoder.embed_tokens(batch.input_ids)
    if features is not None:
        is_patch = batch.input_ids == model.config.image_patch_id
        embeddings = add_features(embeddings, features, is_patch)
    outputs = decoder(
        inputs_embeds=embeddings,
        position_ids=batch.position_ids,
        use_cache=False,
        **attention_inputs(model, batch),
    )
    hidden: torch.Tensor = outputs.last_hidden_state
    return hidden


def add_features(
    embeddings: torch.Tensor, features: torch.Tensor, is_patch: torch.Tensor
) -> torch.Tensor:
    """Add features ``(T, d)`` to embeddings ``(B, L, d)`` at the T true places of ``(B, L)``.

    Raises:
        ValueError: the number of places is not T.
    """
    num_patches = int(is_patch.sum())
    if num_patches != len(features):
        raise ValueError(f"{num_patches} <im_patch> tokens, but {len(features)} vision features")
    placed = torch.zeros_like(embeddings)
    placed[is_patch] = features.to(embeddings.dtype)
    return embeddings + placed
