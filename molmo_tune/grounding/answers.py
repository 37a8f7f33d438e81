"""Scores of short text answers: exact match, ANLS, relaxed accuracy, and choices among options.

Each score compares one prediction with all accepted answers and returns the best. Case and
surrounding or repeated white space never count. Questions list options as ``A. red``, and an answer
can name one by letter, by text or by both; this module formats and parses these letters.

Limitations: no score for free-form captions, which need a judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

MAX_OPTIONS = len(ascii_uppercase)
_LETTERED = re.compile(r"\(?([a-z])(?:[.):]+(?:\s+(.*))?)?", re.DOTALL)


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction equals an accepted answer, else 0."""
    return float(_normal(prediction) in {_normal(answer) for answer in answers})


def edit_distance(first: str, second: str) -> int:
    """Return the Levenshtein distance in characters."""
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
    """Return the normalized Levenshtein similarity of one sample (DocVQA, Biten et al. 2019).

    It is the best ``1 - distance / longer length``, or 0 if that does not exceed ``threshold``. The
    mean over samples is the ANLS of a dataset.
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
    """Return 1 if the prediction matches by ChartQA's rule, else 0.

    Numbers can be off by 5%; other text must match exactly. ``50%`` is the number 0.5. An expected
    0 has no relative error and must match as text.
    """
    stated = _normal(prediction)
    return float(any(_is_near(stated, _normal(answer), tolerance) for answer in answers))


def format_options(options: Sequence[str]) -> list[str]:
    """Return the options as questions and answers spell them: ``["A. red", "B. blue"]``.

    Raises:
        ValueError: there are more options than letters.
    """
    if len(options) > MAX_OPTIONS:
        raise ValueError(f"{len(options)} options but {MAX_OPTIONS} letters")
    return [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]


def read_choice(text: str, options: Sequence[str]) -> int | None:
    """Return the number of the option that an answer names, from 0; None for none or several.

    An answer can name an option by its text, by its letter (``B``, ``b.``, ``(B)``) or by both
    (``B. blue``). If it equals the text of an option, it names that option, even if it is also a
    letter.
    """
    stated = _choice_text(text)
    texts = [_choice_text(option) for option in options]
    if stated in texts:
        return texts.index(stated) if texts.count(stated) == 1 else None
    match = _LETTERED.fullmatch(stated)
    index = ord(match[1]) - ord("a") if match else len(options)
    if match is None or index >= len(options):
        return None
    return index if match[2] is None or match[2] == texts[index] else None


def _choice_text(text: str) -> str:
    return _normal(text).removesuffix(".").rstrip()
