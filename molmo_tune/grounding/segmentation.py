"""J&F of masks: how video object segmentation is scored, for points that a segmenter has expanded.

J is the overlap of two masks (intersection over union), F how well their outlines agree within a
tolerance that grows with the picture (0.008 of its diagonal, rounded up to pixels). A track's score
is the mean over its frames, a video's the mean over its objects. Definitions are those of the DAVIS
benchmark (Perazzi et al., 2016).

What it does not do: make masks of points; Molmo 2 predicts none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Mask = NDArray[np.bool_]

OUTLINE_TOLERANCE = 0.008  # of the diagonal


@dataclass(frozen=True, slots=True)
class SegmentationScore:
    """Region overlap ``j``, agreement of outlines ``f``, and their mean; each from 0 to 1."""

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """The mean of both."""
        return (self.j + self.f) / 2


def score_masks(predicted: Sequence[Mask], truth: Sequence[Mask]) -> SegmentationScore:
    """Score one object through a video.

    Args:
        predicted: mask ``(H, W)`` per frame, all false where it is not there.
        truth: as many, of the same size.

    Raises:
        ValueError: no frames, or other numbers or sizes of masks.
    """
    if not truth or len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predicted masks for {len(truth)} true ones")
    pairs = list(zip(predicted, truth, strict=True))
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            raise ValueError(f"a mask of {ours.shape} for one of {theirs.shape}")
    return SegmentationScore(
        float(np.mean([overlap(ours, theirs) for ours, theirs in pairs])),
        float(np.mean([outline_agreement(ours, theirs) for ours, theirs in pairs])),
    )


def overlap(predicted: Mask, truth: Mask) -> float:
    """J: intersection over union; 1 when both are empty."""
    union = int(np.count_nonzero(predicted | truth))
    return int(np.count_nonzero(predicted & truth)) / union if union else 1.0


def outline_agreement(predicted: Mask, truth: Mask) -> float:
    """F: harmonic mean of the shares of either outline that lie near the other one."""
    ours, theirs = _outline(predicted), _outline(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    reach = math.ceil(OUTLINE_TOLERANCE * math.hypot(*truth.shape))
    precision = float(np.mean(distance_transform_edt(~theirs)[ours] <= reach))
    recall = float(np.mean(distance_transform_edt(~ours)[theirs] <= reach))
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _outline(mask: Mask) -> Mask:
    """Pixels that differ from their right, lower or lower right neighbor."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    found: Mask = (mask != right) | (mask != below) | (mask != across)
    return found
