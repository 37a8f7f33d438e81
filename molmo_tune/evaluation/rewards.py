"""What an answer is worth against the labels: one number, for training that is led by it.

The reward is the F1 that `evaluate` reports (`molmo_tune.evaluation.scoring`): of points in boxes
or masks, of counts, of tracks frame by frame, of time spans, of exact words. So what is rewarded is
what is measured, and no second opinion of right and wrong exists. An answer that nobody can score,
such as a caption, has no reward: None, not 0.

`GroundingReward` is the same as a reward function of TRL. It says nothing about TRL's rollouts,
which prompt through the stock processor and its frames of a video, not those of training.

What it does not do: shape rewards (for length, for form) or judge words.
"""

from __future__ import annotations

from collections.abc import Sequence

from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.scoring import score_answer
from molmo_tune.templates.conversations import Conversation


def reward(item: Item, conversation: Conversation, text: str) -> float | None:
    """The reward of a text as the answer to one question of an item: 0 to 1, or None."""
    score = score_answer(item, conversation, text)
    return score.f1 if score.is_scored else None


class GroundingReward:
    """A reward function as TRL calls it: with columns of the data set, one entry per completion.

    The columns ``item`` and ``question`` hold numbers, because a table of the `datasets` library
    cannot hold labels: of the item, and of the conversation in it.

    Args:
        items: what the numbers count.
    """

    __name__ = "grounding"  # TRL logs a reward under its name

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def __call__(
        self, completions: Sequence[str], item: Sequence[int], question: Sequence[int], **_: object
    ) -> list[float | None]:
        """Rewards ``(n,)`` of n completions, None where there is none."""
        asked = [self._items[number] for number in item]
        return [
            reward(one, one.conversations[place], text)
            for one, place, text in zip(asked, question, completions, strict=True)
        ]
