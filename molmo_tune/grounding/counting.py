"""Counting: which number an answer states, and whether it is right.

For images the prediction is the number of points in the answer, whatever number it also states;
for videos it is the stated number (`parse_count`). "Close" is off by at most one; for videos the
margin grows by one for every twenty objects. The rules are Ai2's. Points are read elsewhere
(`molmo_tune.grounding.text.parse_points`).
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
    """Read the number that a counting answer states; None when it states none.

    Read are a number alone, ``… a total of N``, ``the total number of … is: N``, ``There are N …``
    and ``There are none.``, which is 0. Of several totals the first counts.

    Args:
        ai2_compat: read neither of the last two, as the reference's video counting does not (its
            pattern for "none" can never match), so that it scores such answers as wrong.
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
    """One counting answer: what it stated (None: nothing readable) against what is there."""

    predicted: int | None
    expected: int
    is_close: bool

    @property
    def is_correct(self) -> bool:
        """Whether the stated number is exactly right."""
        return self.predicted == self.expected

    @property
    def is_valid(self) -> bool:
        """Whether a number was stated at all."""
        return self.predicted is not None


def _score(predicted: int | None, expected: int, margin: int) -> CountScore:
    return CountScore(
        predicted, expected, predicted is not None and abs(predicted - expected) <= margin
    )


def score_image_count(num_points: int | None, expected: int) -> CountScore:
    """Score an image answer by its number of points; close is off by at most 1.

    An answer without points by design is scored by its stated number, None when it states none.
    """
    return _score(num_points, expected, 1)


def score_video_count(predicted: int | None, expected: int) -> CountScore:
    """Score a video answer by its stated number; close is within ``1 + floor(expected / 20)``."""
    return _score(predicted, expected, 1 + expected // 20)


@dataclass(frozen=True, slots=True)
class CountAccuracy:
    """Shares, 0 to 1, over all samples; an unreadable answer is neither correct nor close."""

    accuracy: float
    close_accuracy: float
    valid: float
    num_samples: int


def count_accuracy(scores: Sequence[CountScore]) -> CountAccuracy:
    """Average counting scores; raises ValueError when there are none."""
    if not scores:
        raise ValueError("the accuracy of no samples is undefined")
    num = len(scores)
    return CountAccuracy(
        accuracy=sum(s.is_correct for s in scores) / num,
        close_accuracy=sum(s.is_close for s in scores) / num,
        valid=sum(s.is_valid for s in scores) / num,
        num_samples=num,
    )
