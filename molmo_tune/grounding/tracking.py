"""Tracking scores: per-frame precision, recall and F1, and HOTA with its two factors.

Precision, recall and F1 measure, frame by frame, whether points hit the right objects, as for
pointing. HOTA also measures whether an object keeps its id: it is √(DetA·AssA), where DetA scores
the points, and AssA how well predicted ids and true objects correspond over the video. The HOTA
algorithm is TrackEval's (Luiten et al., IJCV 2021), with similarity 1 if the point is in the object
and 0 otherwise, so that every α threshold gives the same number.

One deviation from Ai2's evaluation: that lists regions for *all* objects but points only for the
objects present in a frame, and pairs them by position, so a perfect answer scores below 1 once an
earlier object is absent. Here regions and points are paired by object id, and only present objects
count. ``ai2_compat=True`` pairs as Ai2 does, for comparison with published numbers.

Coordinates are pixels. Prediction and ground truth must share their frame numbers, usually those of
`molmo_tune.grounding.text.parse_tracks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from molmo_tune.grounding.pointing import (
    PointingScore,
    Region,
    match_by_distance,
    score_hits,
)
from molmo_tune.grounding.text import ParsedTrackFrame

XY = tuple[float, float]
FramePoints = Mapping[int, Mapping[str, XY]]
"""Frame number to object id to point in pixels."""
ObjectRegions = Mapping[str, Mapping[int, Region]]
"""Object id to frame number to region."""

_EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True)
class HotaScore:
    """HOTA, detection and association accuracy, detection precision and recall, each 0 to 1."""

    hota: float
    det_a: float
    ass_a: float
    det_pr: float
    det_re: float


@dataclass(frozen=True, slots=True)
class TrackingScore:
    """Score of one video; precision, recall and F1 are means over its frames."""

    precision: float
    recall: float
    f1: float
    hota: HotaScore
    num_frames: int


@dataclass(frozen=True, slots=True, eq=False)
class FrameSimilarity:
    """One frame for `score_hota`: indices of its objects and tracks, and their similarity.

    ``similarity`` has the shape (objects, tracks).
    """

    object_indices: NDArray[np.intp]
    track_indices: NDArray[np.intp]
    similarity: NDArray[np.float64]


def by_frame(frames: Sequence[ParsedTrackFrame]) -> dict[int, dict[str, XY]]:
    """Return a parsed track answer by frame number; the later of two times in a frame wins."""
    return {frame.frame_index: frame.points for frame in frames}


def _region(regions: ObjectRegions, object_id: str, frame: int) -> Region:
    try:
        return regions[object_id][frame]
    except KeyError:
        message = f"object {object_id!r} has a point but no region in frame {frame}"
        raise ValueError(message) from None


def _paired_regions(
    object_ids: Sequence[str], regions: ObjectRegions, frame: int, ai2_compat: bool
) -> list[Region | None]:
    """Return the region for each object's point; None is never hit."""
    if not ai2_compat:
        return [_region(regions, object_id, frame) for object_id in object_ids]
    listed: list[Region | None] = [at.get(frame) for at in regions.values()]
    return (listed + [None] * len(object_ids))[: len(object_ids)]


def _hit(region: Region | None, xy_px: XY) -> bool:
    return region is not None and region.contains(xy_px)


def _score_frame(
    predicted: Mapping[str, XY],
    ground_truth: Mapping[str, XY],
    regions: ObjectRegions,
    frame: int,
    ai2_compat: bool,
) -> PointingScore:
    points = list(predicted.values())
    paired = _paired_regions(list(ground_truth), regions, frame, ai2_compat)
    pairs = match_by_distance(points, list(ground_truth.values()))
    hits = sum(_hit(paired[j], points[i]) for i, j in pairs)
    counts_all = ai2_compat and len(ground_truth) > 0
    return score_hits(hits, len(points), len(regions) if counts_all else len(ground_truth))


def _similarities(
    predicted: FramePoints, ground_truth: FramePoints, regions: ObjectRegions, ai2_compat: bool
) -> list[FrameSimilarity]:
    objects = {i: n for n, i in enumerate(sorted({i for at in ground_truth.values() for i in at}))}
    tracks = {i: n for n, i in enumerate(sorted({i for at in predicted.values() for i in at}))}
    result: list[FrameSimilarity] = []
    for frame in sorted({*predicted, *ground_truth}):
        object_ids, track_ids = (
            sorted(ground_truth.get(frame, {})),
            sorted(predicted.get(frame, {})),
        )
        paired = _paired_regions(object_ids, regions, frame, ai2_compat)
        hits = [[float(_hit(r, predicted[frame][t])) for t in track_ids] for r in paired]
        result.append(
            FrameSimilarity(
                np.array([objects[i] for i in object_ids], dtype=np.intp),
                np.array([tracks[i] for i in track_ids], dtype=np.intp),
                np.array(hits, dtype=float).reshape(len(object_ids), len(track_ids)),
            )
        )
    return result


def _alignment(frames: Sequence[FrameSimilarity], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how well each object and track correspond over the video, 0 to 1."""
    together = np.zeros_like(seen)
    for frame in frames:
        similarity = frame.similarity
        total = similarity.sum(axis=0)[None, :] + similarity.sum(axis=1)[:, None] - similarity
        share = np.divide(similarity, total, out=np.zeros_like(total), where=total > _EPSILON)
        together[np.ix_(frame.object_indices, frame.track_indices)] += share
    aligned: NDArray[np.float64] = together / (seen - together + _EPSILON)
    return aligned


def _presence(indices: Sequence[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Return the number of frames that contain each index."""
    return np.bincount(np.concatenate(indices)).astype(float)


def score_hota(frames: Sequence[FrameSimilarity], *, alpha: float = 0.5) -> HotaScore:
    """Return the HOTA of one video at one similarity threshold.

    All scores are 1 if prediction and ground truth are both empty, and 0 if one of them is.

    Args:
        frames: every frame that has an object or a prediction.
        alpha: smallest similarity of a match.
    """
    num_objects = sum(len(f.object_indices) for f in frames)
    num_tracked = sum(len(f.track_indices) for f in frames)
    if num_objects == 0 or num_tracked == 0:
        value = float(num_objects == num_tracked)
        return HotaScore(value, value, value, value, value)
    object_frames = _presence([f.object_indices for f in frames])
    track_frames = _presence([f.track_indices for f in frames])
    seen = object_frames[:, None] + track_frames[None, :]
    alignment = _alignment(frames, seen)
    matches = np.zeros_like(seen)
    for frame in frames:
        pairs = np.ix_(frame.object_indices, frame.track_indices)
        rows, columns = linear_sum_assignment(-alignment[pairs] * frame.similarity)
        kept = frame.similarity[rows, columns] >= alpha - _EPSILON
        matches[frame.object_indices[rows[kept]], frame.track_indices[columns[kept]]] += 1
    hits = matches.sum()
    ass_a = (matches * matches / np.maximum(1, seen - matches)).sum() / max(1.0, hits)
    det_a = hits / max(1.0, num_objects + num_tracked - hits)
    return HotaScore(
        hota=float(np.sqrt(det_a * ass_a)),
        det_a=float(det_a),
        ass_a=float(ass_a),
        det_pr=float(hits / num_tracked),
        det_re=float(hits / num_objects),
    )


def score_tracking(
    predicted: FramePoints,
    ground_truth: FramePoints,
    regions: ObjectRegions,
    *,
    ai2_compat: bool = False,
) -> TrackingScore:
    """Score one video.

    A frame with predictions and no object, or the reverse, scores 0; a video with neither scores 1.

    Args:
        predicted: predicted points by frame (`by_frame`), with the answer's own ids.
        ground_truth: labeled points by frame, of present and visible objects only.
        regions: extent of every object in every frame in which it has a point.
        ai2_compat: pair regions with points by position, as Ai2's evaluation does.

    Raises:
        ValueError: an object has a point but no region in a frame (not with ``ai2_compat``).
    """
    scores = [
        _score_frame(
            predicted.get(frame, {}), ground_truth.get(frame, {}), regions, frame, ai2_compat
        )
        for frame in sorted({*predicted, *ground_truth})
    ] or [score_hits(0, 0, 0)]
    return TrackingScore(
        precision=float(np.mean([s.precision for s in scores])),
        recall=float(np.mean([s.recall for s in scores])),
        f1=float(np.mean([s.f1 for s in scores])),
        hota=score_hota(_similarities(predicted, ground_truth, regions, ai2_compat)),
        num_frames=len({*predicted, *ground_truth}),
    )
