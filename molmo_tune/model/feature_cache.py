"""Vision features that are computed once, where neither tower nor connector is trained.

A batch says of each medium whether its features were found (`VisionPiece`). What was not found is
encoded here, rounded to bfloat16 and kept; what was found is put in its place. Fresh features are
rounded as well, so a run does not depend on which of them happened to be there: with the cache it
differs from one without by that rounding (a relative 2^-9), and from itself by nothing but the
order of sums in the tower.

A checkpoint's features are found under its fingerprint: every weight of tower and connector as it
was loaded, the settings of the processors, and the precision they are computed in.

What it does not do: look features up (`molmo_tune.encoding.media_inputs`, in the loader processes).
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
"""Of the computation in `vision`; to be raised when features change by it."""


def fingerprint(body: MolmoBody, processor: Processor, precision: str) -> str:
    """A digest of all that turns media into features.

    Args:
        body: `Molmo2Model`.
        processor: of the checkpoint.
        precision: in which the run computes.
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
    """Features ``(T, d)`` of a batch in token order, in bfloat16; None without vision tokens.

    Args:
        body: `Molmo2Model`, nothing of whose vision is trained.
        batch: with its pieces.
        store: keeps what is computed.
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
        raise ValueError(f"{len(kept) + len(fresh)} vision features belong to no medium")
    return torch.cat(parts)
