"""Scores of short text answers: exact match, ANLS and relaxed accuracy.

Each compares one prediction with all accepted answers and takes the best. Case and surrounding or
repeated white space never count. Free-form captions need a judge and are not scored here.
"""

from __future__ import annotations

from collections.abc import Sequence


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 when the prediction equals an accepted answer, else 0."""
    return float(_normal(prediction) in {_normal(answer) for answer in answers})


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance in characters."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def _similarity(first: str, second: str) -> float:
    longest = max(len(first), len(second))
    return 1.0 if longest == 0 else 1.0 - edit_distance(first, second) / longest


def anls(prediction: str, answers: Sequence[str], *, threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity of one sample (DocVQA, Biten et al. 2019).

    Returns:
        The best ``1 - distance / longer length``, 0 when it is not above ``threshold``.
    """
    best = max((_similarity(_normal(prediction), _normal(a)) for a in answers), default=0.0)
    return best if best > threshold else 0.0


def _number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None


def _is_near(prediction: str, answer: str, tolerance: float) -> bool:
    stated, expected = _number(prediction), _number(answer)
    if stated is not None and expected:
        return abs(stated - expected) <= tolerance * abs(expected)
    return prediction == answer


def relaxed_accuracy(prediction: str, answers: Sequence[str], *, tolerance: float = 0.05) -> float:
    """ChartQA's rule: numbers may be off by 5 %, other text must match exactly.

    ``50%`` is the number 0.5. An expected 0 has no relative error and must match as text.
    """
    stated = _normal(prediction)
    return float(any(_is_near(stated, _normal(answer), tolerance) for answer in answers))
