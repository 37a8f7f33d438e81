"""J&F of masks, the score of video object segmentation, for points that a segmenter expanded.

J is the overlap of two masks (intersection over union). F measures how well their outlines agree
within a tolerance of 0.008 of the frame's diagonal, rounded up to whole pixels. A track's score is
the mean over its frames, a video's score the mean over its objects. Source: the DAVIS benchmark
(Perazzi et al., 2016).

Limitations: makes no masks from points; Molmo 2 predicts points only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Mask = NDArray[np.bool_]

OUTLINE_TOLERANCE = 0.008  # fraction of the diagonal


@dataclass(frozen=True, slots=True)
class SegmentationScore:
    """Region overlap ``j`` and outline agreement ``f``, each from 0 to 1."""

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """Mean of ``j`` and ``f``."""
        return (self.j + self.f) / 2


def score_masks(predicted: Sequence[Mask], ground_truth: Sequence[Mask]) -> SegmentationScore:
    """Score one object through a video.

    Args:
        predicted: one mask ``(H, W)`` per frame, all false where the object is absent.
        ground_truth: as many masks, of the same sizes.

    Raises:
        ValueError: there are no frames, or the numbers or sizes of masks differ.
    """
    if not ground_truth or len(predicted) != len(ground_truth):
        raise ValueError(
            f"{len(predicted)} predicted masks, {len(ground_truth)} ground-truth masks"
        )
    pairs = list(zip(predicted, ground_truth, strict=True))
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            raise ValueError(f"predicted mask {ours.shape}, ground-truth mask {theirs.shape}")
    return SegmentationScore(
        float(np.mean([overlap(ours, theirs) for ours, theirs in pairs])),
        float(np.mean([outline_agreement(ours, theirs) for ours, theirs in pairs])),
    )


def overlap(predicted: Mask, ground_truth: Mask) -> float:
    """Return J, the intersection over union; 1 if both masks are empty."""
    union = int(np.count_nonzero(predicted | ground_truth))
    return int(np.count_nonzero(predicted & ground_truth)) / union if union else 1.0


def outline_agreement(predicted: Mask, ground_truth: Mask) -> float:
    """Return F, the harmonic mean of the fractions of each outline near the other outline."""
    ours, theirs = _outline(predicted), _outline(ground_truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    reach = math.ceil(OUTLINE_TOLERANCE * math.hypot(*ground_truth.shape))
    precision = float(np.mean(distance_transform_edt(~theirs)[ours] <= reach))
    recall = float(np.mean(distance_transform_edt(~ours)[theirs] <= reach))
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _outline(mask: Mask) -> Mask:
    """Return the pixels that differ from their right, lower or lower right neighbor."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    found: Mask = (mask != right) | (mask != below) | (mask != across)
    return found
