"""Counting: the number that an answer states, and whether it is correct.

For images, the prediction is the number of points in the answer, whatever number it states; for
videos, it is the stated number (`parse_count`). "Close" means off by at most one; for videos the
margin grows by one for every twenty objects. The rules are Ai2's. `grounding.text` parses points.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# The label between "of" and "is:" is capped: without a cap the search is quadratic in the text.
_TOTAL = re.compile(
    r"(?:a total of|the total number(?:\s++of\s++.{1,120}?(?<=\S))?\s++is:)\s*+(\d++)"
)
_COUNT_FIRST = re.compile(r"there are (\d++)\b")
_NONE = re.compile(r"\bnone\b")


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # not a number, or one of thousands of digits
        return None


def parse_count(text: str, *, ai2_compat: bool = False) -> int | None:
    """Return the number that a counting answer states; None if it states none.

    Recognized forms are a number alone, ``… a total of N``, ``the total number of … is: N``,
    ``There are N …`` and ``There are none.``, which is 0. The first of several totals counts.

    Args:
        ai2_compat: ignore the last two forms, as the reference's video counting does; it scores
            such answers as wrong, because its pattern for "none" can never match.
    """
    lowered = text.strip().lower().rstrip(".").strip()
    number = _integer(lowered)
    if number is not None:
        return number
    match = _TOTAL.search(lowered)
    if match is None and not ai2_compat:
        match = _COUNT_FIRST.match(lowered)
    if match is not None:
        return _integer(match[1])
    return 0 if not ai2_compat and _NONE.search(lowered) else None


@dataclass(frozen=True, slots=True)
class CountScore:
    """One counting answer: the stated number (None: nothing parsed) and the true number."""

    predicted: int | None
    expected: int
    is_close: bool

    @property
    def is_correct(self) -> bool:
        """Whether the stated number is exactly correct."""
        return self.predicted == self.expected

    @property
    def is_valid(self) -> bool:
        """Whether the answer states a number."""
        return self.predicted is not None


def _score(predicted: int | None, expected: int, margin: int) -> CountScore:
    return CountScore(
        predicted, expected, predicted is not None and abs(predicted - expected) <= margin
    )


def score_image_count(num_points: int | None, expected: int) -> CountScore:
    """Score an image answer by its number of points; "close" means off by at most 1.

    For answers without points by design, pass the stated number, or None if there is none.
    """
    return _score(num_points, expected, 1)


def score_video_count(predicted: int | None, expected: int) -> CountScore:
    """Score a video answer by its number; "close" means within ``1 + floor(expected / 20)``."""
    return _score(predicted, expected, 1 + expected // 20)


@dataclass(frozen=True, slots=True)
class CountAccuracy:
    """Fractions of all samples, 0 to 1; an answer without a number is neither correct nor close."""

    accuracy: float
    close_accuracy: float
    valid: float
    num_samples: int


def count_accuracy(scores: Sequence[CountScore]) -> CountAccuracy:
    """Return mean counting scores.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("accuracy needs at least one sample")
    num = len(scores)
    return CountAccuracy(
        accuracy=sum(s.is_correct for s in scores) / num,
        close_accuracy=sum(s.is_close for s in scores) / num,
        valid=sum(s.is_valid for s in scores) / num,
        num_samples=num,
    )
