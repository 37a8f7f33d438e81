"""The score of one answer, whatever was asked, so that all tasks can be summed up alike.

Every score has precision, recall and F1; what they mean is said where they are made (the modules
``…_scoring`` beside this one). What a task has besides is in ``more``, under the names that the
summary uses. An answer that nobody can score automatically, such as a caption, has no number at
all: NaN in Python, null in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from molmo_tune.grounding.pointing import PointingScore


@dataclass(frozen=True, slots=True)
class Score:
    """Score of one answer, 0 to 1."""

    task: str
    precision: float
    recall: float
    f1: float
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_scored(self) -> bool:
        """Whether there is a score at all."""
        return not math.isnan(self.f1)


def pointing_score(
    task: str, score: PointingScore, more: Mapping[str, float] | None = None
) -> Score:
    """The score of points."""
    return Score(task, score.precision, score.recall, score.f1, more or {})


def match_score(task: str, match: float, more: Mapping[str, float]) -> Score:
    """The score of an answer that is right or wrong: precision, recall and F1 are the same."""
    return Score(task, match, match, match, more)


def no_score(task: str) -> Score:
    """For answers that only a person or another model can judge."""
    return Score(task, math.nan, math.nan, math.nan)
