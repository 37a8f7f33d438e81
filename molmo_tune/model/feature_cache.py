"""Vision features that are computed once, if neither the vision tower nor the connector is trained.

For each image or video a batch says whether its features were found (`VisionPiece`). Missing ones
are computed here, rounded to bfloat16 and stored; found ones are inserted. New features are rounded
too, so a run does not depend on what the cache contained: with the cache it differs from a run
without by that rounding (a relative 2^-9), and from itself only by the order of sums in the tower.

Features are stored under the checkpoint's fingerprint: every weight of tower and connector as
loaded, the settings of the processors, and the precision of the computation.

Limitations: features are looked up elsewhere (`molmo_tune.encoding.media_inputs`, in the loaders).
"""

from __future__ import annotations

import hashlib

import torch

from molmo_tune.encoding.encoded import Batch
from molmo_tune.encoding.processor import Processor
from molmo_tune.media.array_cache import ArrayCache
from molmo_tune.model.molmo import MolmoBody
from molmo_tune.model.vision_encoding import encode_vision

FEATURES_VERSION = 1
"""Version of the computation in `vision_encoding`; raise it when features change."""


def fingerprint(body: MolmoBody, processor: Processor, precision: str) -> str:
    """Return a digest of everything that turns media into features.

    Args:
        body: `Molmo2Model`.
        processor: of the checkpoint.
        precision: that the run computes in.
    """
    digest = hashlib.blake2b(f"{FEATURES_VERSION} {precision}".encode(), digest_size=20)
    for part in (body.vision_tower, body.multi_modal_projector):
        for name, tensor in part.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    for settings in (processor.image_processor, processor.video_processor):
        digest.update(settings.to_json_string().encode())
    return digest.hexdigest()


def features_of(body: MolmoBody, batch: Batch, store: ArrayCache) -> torch.Tensor | None:
    """Return bfloat16 features ``(T, d)`` of a batch in token order; None without vision tokens.

    Args:
        body: `Molmo2Model`, with frozen vision tower and connector.
        batch: with its pieces.
        store: for the features that are computed.

    Raises:
        ValueError: the pieces do not use up the features.
    """
    if not batch.pieces:
        return None
    parts: list[torch.Tensor] = []
    with torch.no_grad():
        has_fresh = len(batch.patches) > 0
        computed = encode_vision(body, batch.patches, batch.pooling) if has_fresh else None
    fresh = computed.to(torch.bfloat16) if computed is not None else batch.features[:0]
    kept = batch.features
    for piece in batch.pieces:
        source = kept if piece.is_kept else fresh
        parts.append(source[: piece.num_tokens])
        if piece.is_kept:
            kept = kept[piece.num_tokens :]
        else:
            fresh = fresh[piece.num_tokens :]
            bits = parts[-1].contiguous().view(torch.uint16).cpu().numpy()
            store.put(piece.key, bits)
    if len(kept) or len(fresh):
        raise ValueError(f"{len(kept) + len(fresh)} vision features belong to no image or video")
    return torch.cat(parts)
