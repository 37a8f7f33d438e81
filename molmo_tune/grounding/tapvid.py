"""TAP-Vid scores for tracking any point: average Jaccard, position and occlusion accuracy.

For densely tracked points (synthetic scenes, motion capture), a position error in pixels is more
informative than "inside the object". Source: TAP-Vid (Doersch et al., NeurIPS 2022). Positions are
compared in a 256×256 frame at thresholds of 1, 2, 4, 8 and 16 pixels, and only frames after a
point's query frame count ("first" mode). Tracks must be dense: the caller fills in frames that an
answer omits, as predicted occlusions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS_PX = (1, 2, 4, 8, 16)
RASTER_PX = 256


@dataclass(frozen=True, slots=True)
class TapVidScore:
    """Average Jaccard, fraction of visible points within thresholds, occlusion accuracy; 0 to 1."""

    average_jaccard: float
    position_accuracy: float
    occlusion_accuracy: float


def score_tapvid(
    predicted_xy_px: NDArray[np.float64],
    predicted_visible: NDArray[np.bool_],
    true_xy_px: NDArray[np.float64],
    true_visible: NDArray[np.bool_],
    query_frames: NDArray[np.int_],
    *,
    size_wh: tuple[float, float],
) -> TapVidScore:
    """Score the tracked points of one video.

    Args:
        predicted_xy_px: (points, frames, 2) in pixels of ``size_wh``; ignored where not visible.
        predicted_visible: (points, frames).
        true_xy_px: as ``predicted_xy_px``; ``true_visible`` is as ``predicted_visible``.
        query_frames: (points,) frame in which each point was given; only later frames are scored.
        size_wh: size in pixels of the frame, scaled to 256×256 for the thresholds.

    Raises:
        ValueError: no frame comes after its query, or no point is visible in those frames.
    """
    scored = np.arange(true_visible.shape[1])[None, :] > query_frames[:, None]
    if not (scored & true_visible).any():
        raise ValueError("TAP-Vid: no visible point in any frame after its query frame")
    to_raster = RASTER_PX / np.asarray(size_wh, dtype=float)
    error_px = np.linalg.norm((predicted_xy_px - true_xy_px) * to_raster, axis=-1)
    num_visible = int((scored & true_visible).sum())
    jaccards, accuracies = [], []
    for threshold in THRESHOLDS_PX:
        near = error_px < threshold
        hits = int((scored & true_visible & predicted_visible & near).sum())
        wrong = int((scored & predicted_visible & ~(true_visible & near)).sum())
        jaccards.append(hits / (num_visible + wrong))
        accuracies.append(int((scored & true_visible & near).sum()) / num_visible)
    agreement = (predicted_visible == true_visible)[scored]
    return TapVidScore(
        average_jaccard=float(np.mean(jaccards)),
        position_accuracy=float(np.mean(accuracies)),
        occlusion_accuracy=float(agreement.mean()),
    )
