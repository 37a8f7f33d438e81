"""The reward of an answer: the F1 that `evaluate` reports, for preference and reward training.

F1 is of points in boxes or masks, of counts, of tracks frame by frame, of time spans, or of exact
text (`molmo_tune.evaluation.scoring`), so training rewards what the evaluation measures. An answer
without a score, such as a caption, has the reward None, not 0.

`GroundingReward` is the same as a TRL reward function. It does not change TRL's rollouts, which use
the stock processor and its frame sampling, not those of training.

Limitations: no reward shaping (length, format), and no judge of free text.
"""

from __future__ import annotations

from collections.abc import Sequence

from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.scoring import score_answer
from molmo_tune.templates.conversations import Conversation


def reward(item: Item, conversation: Conversation, text: str) -> float | None:
    """Return the reward of a text as the answer to a question of an item: 0 to 1, or None."""
    score = score_answer(item, conversation, text)
    return score.f1 if score.is_scored else None


class GroundingReward:
    """A TRL reward function: it gets dataset columns with one entry per completion.

    A table of the `datasets` library cannot hold labels, so the columns ``item`` and ``question``
    are indices: of the item, and of the conversation in it.

    Args:
        items: that ``item`` indexes.
    """

    __name__ = "grounding"  # the name under which TRL logs the reward

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def __call__(
        self, completions: Sequence[str], item: Sequence[int], question: Sequence[int], **_: object
    ) -> list[float | None]:
        """Return the rewards ``(n,)`` of n completions, with None for those without a score."""
        items = [self._items[index] for index in item]
        return [
            reward(one, one.conversations[index], text)
            for one, index, text in zip(items, question, completions, strict=True)
        ]
