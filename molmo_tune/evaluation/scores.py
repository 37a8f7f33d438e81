"""The score of one answer, in a form that all tasks share.

Every score has precision, recall and F1, defined in the ``…_scoring`` modules. Other metrics of a
task are in ``more``, under their names in the summary. An answer that cannot be scored
automatically, such as a caption, has NaN (null in JSON) for all of them.
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
        """Whether the answer has a score."""
        return not math.isnan(self.f1)


def pointing_score(
    task: str, score: PointingScore, more: Mapping[str, float] | None = None
) -> Score:
    """Return the score of points."""
    return Score(task, score.precision, score.recall, score.f1, more or {})


def match_score(task: str, match: float, more: Mapping[str, float]) -> Score:
    """Return the score of a right or wrong answer: precision, recall and F1 are the same."""
    return Score(task, match, match, match, more)


def no_score(task: str) -> Score:
    """Return the score of an answer that cannot be scored automatically."""
    return Score(task, math.nan, math.nan, math.nan)
