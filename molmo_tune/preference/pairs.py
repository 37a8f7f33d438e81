"""What becomes of two answers to one question: a pair of a better and a worse one, or nothing.

The labels judge: the answer with the higher F1 is the better one, if it is higher by enough. Two
answers that score alike teach nothing. Every couple that is not used is counted under one of the
reasons below, so pairs and reasons sum to the answer pairs that were to be drawn.

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
    "not asked": "not asked, beyond preference.max_questions",
    "no medium": "about no image or video",
    "not scored": "of tasks whose answers have no score",
    "medium does not open": "about a medium that does not open",
    "cut": "one is cut at eval.max_new_tokens",
    "alike": "they score alike (preference.min_f1_gap)",
    "special token": "the words of one hold a special token",
    "too long": "longer together than data.max_tokens allows",
}
"""Why an answer pair of answers is no pair, in the order in which the reasons are looked at."""


class SampledAnswer(NamedTuple):
    """An answer with its score. ``is_truncated``: the limit of tokens came before its end."""

    text: str
    f1: float
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with a better (chosen) and a worse (rejected) answer.

    Args:
        item: number of the item.
        question: number of the conversation in the item.
        asked: the question.
        chosen: the better answer.
        rejected: the worse answer.
        chosen_f1: score of the better.
        rejected_f1: score of the worse.
        reference: log-probabilities of both by the model that gave them, once they are known.
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
    """All pairs, in the order of their items, and how many answer pairs gave none, by reason.

    ``drawn_f1``: mean score of all answers that have one, of pairs and others; None without any.
    """

    pairs: tuple[Pair, ...]
    unused: dict[Unused, int]
    drawn_f1: float | None

    @classmethod
    def of(cls, pairs: Iterable[Pair], unused: Counter[Unused], drawn_f1: float | None) -> Mined:
        """Sorted, reasons without an answer pair left away."""
        in_order = sorted(pairs, key=lambda pair: (pair.item, pair.question))
        counts = {name: unused[name] for name in REASONS if unused[name]}
        return cls(tuple(in_order), counts, drawn_f1)

    @property
    def num_answer_pairs(self) -> int:
        """Pairs and answer pairs that gave none."""
        return len(self.pairs) + sum(self.unused.values())

    def summary(self) -> str:
        """In one line: what there is, and what became of the rest."""
        head = f"{self.num_answer_pairs} answer pairs, {len(self.pairs)} pairs"
        return "; ".join([head, *(f"{n} {REASONS[name]}" for name, n in self.unused.items())])


def better_and_worse(
    first: SampledAnswer, second: SampledAnswer, *, min_f1_gap: float
) -> tuple[SampledAnswer, SampledAnswer] | Unused:
    """The two in the order of their scores; or why they are no pair.

    A cut answer is none, whatever it scores: where it would have ended is not known.
    """
    if first.is_truncated or second.is_truncated:
        return "cut"
    better, worse = (first, second) if first.f1 >= second.f1 else (second, first)
    if better.f1 - worse.f1 < min_f1_gap:
        return "alike"
    return better, worse
