"""Scores of time spans: when does something happen?

`span_iou` compares two spans, `recall_at_iou` asks for the share of true spans that were found (the
"R@k, IoU=θ" of moment retrieval), `mean_average_precision` ranks scored spans of many videos as in
ActivityNet. Spans are ``(start_s, end_s)`` in seconds with ``start_s <= end_s``; a span of no
length overlaps nothing. Text is written and read in `molmo_tune.grounding.spans`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

Span = tuple[float, float]
ACTIVITYNET_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def span_iou(first: Span, second: Span) -> float:
    """Intersection over union of two spans, 0 to 1."""
    overlap = min(first[1], second[1]) - max(first[0], second[0])
    if overlap <= 0:
        return 0.0
    return overlap / ((first[1] - first[0]) + (second[1] - second[0]) - overlap)


def recall_at_iou(
    predicted: Sequence[Span], truth: Sequence[Span], *, iou: float, top_k: int | None = None
) -> float:
    """Share of true spans that one of the first ``top_k`` predictions overlaps by ``iou`` or more.

    Args:
        predicted: best first. All of them count when ``top_k`` is None.
        truth: the true spans of the same video and query.

    Returns:
        0 to 1; without a true span 1 when nothing was predicted, else 0.
    """
    if not truth:
        return float(not predicted)
    tried = predicted[:top_k]
    return sum(any(span_iou(span, t) >= iou for span in tried) for t in truth) / len(truth)


def match_spans(predicted: Sequence[Span], truth: Sequence[Span], *, iou: float) -> int:
    """Most one-to-one pairs of a predicted and a true span that overlap by ``iou`` or more."""
    if not predicted or not truth:
        return 0
    fits = np.array([[span_iou(guess, span) >= iou for span in truth] for guess in predicted])
    rows, columns = linear_sum_assignment(fits, maximize=True)
    return int(fits[rows, columns].sum())


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A predicted span of one video with its confidence (higher is surer)."""

    video_id: str
    span: Span
    score: float


def _found(
    predicted: Sequence[ScoredSpan], truth: Mapping[str, Sequence[Span]], iou: float
) -> list[bool]:
    """For each prediction, surest first, whether it finds a true span not found before."""
    taken = {video_id: [False] * len(spans) for video_id, spans in truth.items()}
    found: list[bool] = []
    for guess in sorted(predicted, key=lambda guess: -guess.score):
        overlaps = [span_iou(guess.span, span) for span in truth.get(guess.video_id, ())]
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
    predicted: Sequence[ScoredSpan], truth: Mapping[str, Sequence[Span]], *, iou: float
) -> float:
    """Area under the precision-recall curve, precision made non-increasing, as in ActivityNet.

    Args:
        predicted: spans of all videos; each may find one true span of its own video.
        truth: video id to its true spans.

    Returns:
        0 to 1; without any true span 1 when nothing was predicted, else 0.
    """
    num_true = sum(len(spans) for spans in truth.values())
    if num_true == 0:
        return float(not predicted)
    if not predicted:
        return 0.0
    hits = np.cumsum(_found(predicted, truth, iou))
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], hits / num_true])
    return float(np.sum(np.diff(recall) * envelope))


def mean_average_precision(
    predicted: Sequence[ScoredSpan],
    truth: Mapping[str, Sequence[Span]],
    *,
    ious: Sequence[float] = ACTIVITYNET_IOUS,
) -> float:
    """Mean of `average_precision` over IoU thresholds, 0.5 to 0.95 in steps of 0.05 by default."""
    return float(np.mean([average_precision(predicted, truth, iou=iou) for iou in ious]))
