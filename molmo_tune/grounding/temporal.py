"""Scores of time spans, that is, of when something happens.

`span_iou` compares two spans, `recall_at_iou` returns the fraction of true spans that were found
("R@k, IoU=θ" in moment retrieval), and `mean_average_precision` ranks scored spans of many videos
as ActivityNet does. Spans are ``(start_s, end_s)`` in seconds with ``start_s <= end_s``; a span of
length 0 overlaps nothing. `molmo_tune.grounding.spans` formats and parses their text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

Span = tuple[float, float]
ACTIVITYNET_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def span_iou(first: Span, second: Span) -> float:
    """Return the intersection over union of two spans, 0 to 1."""
    overlap = min(first[1], second[1]) - max(first[0], second[0])
    if overlap <= 0:
        return 0.0
    return overlap / ((first[1] - first[0]) + (second[1] - second[0]) - overlap)


def recall_at_iou(
    predicted: Sequence[Span], ground_truth: Sequence[Span], *, iou: float, top_k: int | None = None
) -> float:
    """Return the fraction of true spans that a prediction overlaps by at least ``iou``.

    Args:
        predicted: predicted spans, best first.
        ground_truth: the true spans of the same video and query.
        iou: smallest intersection over union of a match.
        top_k: number of predictions that count; None: all.

    Returns:
        0 to 1. Without a true span: 1 if there is no prediction, else 0.
    """
    if not ground_truth:
        return float(not predicted)
    best = predicted[:top_k]
    found = [any(span_iou(span, true) >= iou for span in best) for true in ground_truth]
    return sum(found) / len(found)


def match_spans(predicted: Sequence[Span], ground_truth: Sequence[Span], *, iou: float) -> int:
    """Return the largest number of one-to-one pairs of spans that overlap by at least ``iou``."""
    if not predicted or not ground_truth:
        return 0
    fits = np.array([[span_iou(one, true) >= iou for true in ground_truth] for one in predicted])
    rows, columns = linear_sum_assignment(fits, maximize=True)
    return int(fits[rows, columns].sum())


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A predicted span of one video with its confidence (higher is better)."""

    video_id: str
    span: Span
    score: float


def _found(
    predicted: Sequence[ScoredSpan], ground_truth: Mapping[str, Sequence[Span]], iou: float
) -> list[bool]:
    """Return for each prediction, best first, whether it finds a new true span."""
    taken = {video_id: [False] * len(spans) for video_id, spans in ground_truth.items()}
    found: list[bool] = []
    for guess in sorted(predicted, key=lambda guess: -guess.score):
        overlaps = [span_iou(guess.span, span) for span in ground_truth.get(guess.video_id, ())]
        free = [
            (overlap, index)
            for index, overlap in enumerate(overlaps)
            if overlap >= iou and not taken[guess.video_id][index]
        ]
        if free:
            taken[guess.video_id][max(free)[1]] = True
        found.append(bool(free))
    return found


def average_precision(
    predicted: Sequence[ScoredSpan], ground_truth: Mapping[str, Sequence[Span]], *, iou: float
) -> float:
    """Return the area under the precision-recall curve, as in ActivityNet.

    Precision is made non-increasing first.

    Args:
        predicted: spans of all videos; each can find one true span of its own video.
        ground_truth: true spans by video id.
        iou: smallest intersection over union of a match.

    Returns:
        0 to 1. Without any true span: 1 if there is no prediction, else 0.
    """
    num_true = sum(len(spans) for spans in ground_truth.values())
    if num_true == 0:
        return float(not predicted)
    if not predicted:
        return 0.0
    hits = np.cumsum(_found(predicted, ground_truth, iou))
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], hits / num_true])
    return float(np.sum(np.diff(recall) * envelope))


def mean_average_precision(
    predicted: Sequence[ScoredSpan],
    ground_truth: Mapping[str, Sequence[Span]],
    *,
    ious: Sequence[float] = ACTIVITYNET_IOUS,
) -> float:
    """Return the mean of `average_precision` over IoU thresholds (default: 0.5 to 0.95)."""
    return float(np.mean([average_precision(predicted, ground_truth, iou=iou) for iou in ious]))
