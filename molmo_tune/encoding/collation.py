"""Collation of encoded samples into one `Batch`: rows padded on the right, vision inputs joined.

Pure and order-preserving: row ``i`` is sample ``i``. Pooling indices are shifted to count patches
over the batch. When a batch holds both images and videos, the pooling windows of images (2×2) are
padded with `NO_PATCH` to the size of those of videos (3×3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from molmo_tune.encoding.encoded import IGNORED_ID, NO_PATCH, Batch, EncodedSample


def collate(samples: Sequence[EncodedSample], *, pad_id: int) -> Batch:
    """Return a batch with one row per sample; `pad_id` fills short rows."""
    length = max(sample.num_tokens for sample in samples)

    def rows(name: str, fill: float) -> torch.Tensor:
        return torch.from_numpy(
            np.stack([_padded(getattr(sample, name), length, fill) for sample in samples])
        )

    patches, pooling = join_vision(samples)
    return Batch(
        input_ids=rows("input_ids", pad_id),
        target_ids=rows("target_ids", IGNORED_ID),
        loss_weights=rows("loss_weights", 0.0),
        position_ids=rows("position_ids", 0),
        branch_ids=rows("branch_ids", 0),
        example_ids=rows("example_ids", -1),
        is_vision=rows("is_vision", False),
        patches=torch.from_numpy(patches),
        pooling=torch.from_numpy(pooling),
        openings=tuple(opening for sample in samples for opening in sample.openings),
        pieces=tuple(piece for sample in samples for piece in sample.pieces),
        features=torch.from_numpy(join_features(samples)).view(torch.bfloat16),
    )


def join_vision(
    samples: Sequence[EncodedSample],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return all patches ``(ΣC, P, D)`` and pooling rows ``(ΣT, K)`` that index all patches."""
    with_vision = [sample for sample in samples if len(sample.patches)]
    if not with_vision:
        return np.zeros((0, 1, 1), np.float32), np.zeros((0, 1), np.int64)
    width = max(sample.pooling.shape[1] for sample in with_vision)
    pooling, offset = [], 0
    for sample in with_vision:
        missing = width - sample.pooling.shape[1]
        rows = np.where(sample.pooling >= 0, sample.pooling + offset, NO_PATCH)
        pooling.append(np.pad(rows, ((0, 0), (0, missing)), constant_values=NO_PATCH))
        offset += sample.patches.shape[0] * sample.patches.shape[1]
    return np.concatenate([s.patches for s in with_vision]), np.concatenate(pooling)


def join_features(samples: Sequence[EncodedSample]) -> NDArray[np.uint16]:
    """Return all cached features ``(ΣT', d)``, as the bits of bfloat16 numbers."""
    known = [sample.features for sample in samples if len(sample.features)]
    return np.concatenate(known) if known else np.zeros((0, 0), np.uint16)


def _padded(array: NDArray[np.generic], length: int, fill: float) -> NDArray[np.generic]:
    return np.pad(array, (0, length - len(array)), constant_values=fill)
