"""What becomes of a model's answer to a training question: half of a pair, or nothing, and why.

The labels' own answer is the better one, always. The model's answer is the worse one when it scores
less than a threshold and less than the labels' answer does; ties teach nothing. Every answer that
is not used is counted under one of the reasons below, so that the sum of pairs and reasons is the
number of questions times the number of answers drawn to each.

Pure: no model, no files (`pairs_file`), no media.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Unused = Literal[
    "not asked",
    "no medium",
    "not scored",
    "medium does not open",
    "good enough",
    "cut",
    "the label's own words",
    "no worse than the label",
    "special token",
    "too long",
]
REASONS: dict[Unused, str] = {
    "not asked": "not asked, beyond preference.max_questions",
    "no medium": "about no image or video",
    "not scored": "tasks whose answers have no score",
    "medium does not open": "the medium does not open",
    "good enough": "the answer scores at least preference.below_f1",
    "cut": "the answer was cut at eval.max_new_tokens",
    "the label's own words": "the answer is the label's, and that scores less than below_f1",
    "no worse than the label": "the answer scores at least as much as the label's",
    "special token": "the answer's words hold a special token",
    "too long": "both answers are longer than data.max_tokens allows",
}
"""Why an answer gives no pair, in the order in which the reasons are looked at."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with a better and a worse answer.

    Args:
        item: number of the item.
        question: number of the conversation in the item.
        asked: the question.
        chosen: the labels' answer.
        rejected: the model's answer.
        f1: of the model's answer.
        reference: log-probabilities of both by the model that gave the answer, once they are known.
    """

    item: int
    question: int
    asked: str
    chosen: str
    rejected: str
    f1: float
    reference: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Mined:
    """All pairs, in the order of their items, and how many answers gave none, by reason."""

    pairs: tuple[Pair, ...]
    unused: dict[Unused, int]

    @classmethod
    def of(cls, pairs: Iterable[Pair], unused: Counter[Unused]) -> Mined:
        """Sorted, reasons without an answer left away."""
        in_order = sorted(pairs, key=lambda pair: (pair.item, pair.question))
        return cls(tuple(in_order), {name: unused[name] for name in REASONS if unused[name]})

    @property
    def num_answers(self) -> int:
        """Pairs and answers that gave none."""
        return len(self.pairs) + sum(self.unused.values())

    def explained(self) -> str:
        """In one line: what there is, and what became of the rest."""
        rest = [f"{count}: {REASONS[name]}" for name, count in self.unused.items()]
        head = f"{self.num_answers} answers, {len(self.pairs)} pairs"
        return "; ".join([head, *rest])


def why_unused(
    *, said: str, said_f1: float, is_cut: bool, truth: str, truth_f1: float, below_f1: float
) -> Unused | None:
    """Why an answer makes no pair with the labels' answer; None when it does.

    Args:
        said: the model's answer.
        said_f1: its score.
        is_cut: whether it hit the limit of tokens; where it would have ended is not known.
        truth: the labels' answer.
        truth_f1: its score, which is less than 1 where an answer cannot say all that labels hold.
        below_f1: what a wrong answer scores less than.
    """
    if said_f1 >= below_f1:
        return "good enough"
    if is_cut:
        return "cut"
    if said == truth:
        return "the label's own words"
    if said_f1 >= truth_f1:
        return "no worse than the label"
    return None
