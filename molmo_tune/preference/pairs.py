"""Two answers to one question: a pair of a chosen and a rejected one, or a reason for none.

The labels decide: the answer with the higher F1 is chosen if the gap is large enough. Two answers
with nearly the same score teach nothing. Every answer pair that is not used counts under one of the
reasons below, so pairs and reasons sum to the planned answer pairs.

Pure: no model, no files (`pairs_file`), no media.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Unused = Literal[
    "not asked",
    "no medium",
    "not scored",
    "medium does not open",
    "cut",
    "alike",
    "special token",
    "too long",
]
REASONS: dict[Unused, str] = {
    "not asked": "not asked (preference.max_questions)",
    "no medium": "without image or video",
    "not scored": "of tasks without a score",
    "medium does not open": "with unreadable media",
    "cut": "with an answer truncated at eval.max_new_tokens",
    "alike": "closer in F1 than preference.min_f1_gap",
    "special token": "with a special token in an answer",
    "too long": "longer than data.max_tokens",
}
"""Why two answers do not make a pair, in the order of the checks: key in JSON, text for people."""


class SampledAnswer(NamedTuple):
    """An answer with its score; ``is_truncated``: it reached the token limit before its end."""

    text: str
    f1: float
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with a chosen (better) and a rejected (worse) answer.

    Args:
        item: number of the item.
        question: number of the conversation in the item.
        asked: the question.
        chosen: its text.
        rejected: its text.
        chosen_f1: its score.
        rejected_f1: its score.
        reference: log-probabilities of both by the model that sampled them, once known.
    """

    item: int
    question: int
    asked: str
    chosen: str
    rejected: str
    chosen_f1: float
    rejected_f1: float
    reference: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Mined:
    """All pairs, in the order of their items, and the number of unused answer pairs by reason.

    ``drawn_f1``: mean score of all sampled answers, used or not; None without any.
    """

    pairs: tuple[Pair, ...]
    unused: dict[Unused, int]
    drawn_f1: float | None

    @classmethod
    def of(cls, pairs: Iterable[Pair], unused: Counter[Unused], drawn_f1: float | None) -> Mined:
        """Sort the pairs and drop reasons that did not occur."""
        in_order = sorted(pairs, key=lambda pair: (pair.item, pair.question))
        counts = {name: unused[name] for name in REASONS if unused[name]}
        return cls(tuple(in_order), counts, drawn_f1)

    @property
    def num_answer_pairs(self) -> int:
        """Pairs plus unused answer pairs."""
        return len(self.pairs) + sum(self.unused.values())

    def summary(self) -> str:
        """Return one line: the pairs, and why the others are unused."""
        head = f"{self.num_answer_pairs} answer pairs, {len(self.pairs)} kept"
        return "; ".join([head, *(f"{n} {REASONS[name]}" for name, n in self.unused.items())])


def better_and_worse(
    first: SampledAnswer, second: SampledAnswer, *, min_f1_gap: float
) -> tuple[SampledAnswer, SampledAnswer] | Unused:
    """Return the two in the order of their scores, or why they do not make a pair.

    A truncated answer never does, whatever its score: its end is unknown.
    """
    if first.is_truncated or second.is_truncated:
        return "cut"
    better, worse = (first, second) if first.f1 >= second.f1 else (second, first)
    if better.f1 - worse.f1 < min_f1_gap:
        return "alike"
    return better, worse
