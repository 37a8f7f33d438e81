"""Pairs → items with two conversations per pair: chosen, rejected, chosen, rejected, …

Such an item is encoded like every other: a message tree whose branches share the media and are
trained only on answers and end tokens. So pairs have the prompts, pixels and targets of supervised
training by construction, and all pairs about one image or video cost one vision pass. Pairs that
do not fit one sequence are spread over several.

Pure and deterministic: a resumed run gets the same items in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from molmo_tune.encoding.items import Item, MediaLimits, num_branch_tokens, num_vision_tokens
from molmo_tune.encoding.processor import Processor
from molmo_tune.preference.pairs import Pair
from molmo_tune.templates.conversations import Conversation


@dataclass(frozen=True, slots=True)
class PairTree:
    """A sequence: ``item`` with conversations 2k (chosen) and 2k+1 (rejected) for pair k."""

    item: Item
    pairs: tuple[Pair, ...]

    def reference(self) -> NDArray[np.float32]:
        """Return the reference's log-probabilities ``(Q, 2)``.

        Raises:
            ValueError: they are not known yet.
        """
        known = [pair.reference for pair in self.pairs if pair.reference is not None]
        if len(known) < len(self.pairs):
            raise ValueError(f"{self.item.sample.id}: the reference is not known yet")
        return np.array(known, np.float32).reshape(-1, 2)


def pair_trees(
    items: Sequence[Item],
    pairs: Sequence[Pair],
    processor: Processor,
    limits: MediaLimits,
    *,
    max_tokens: int,
) -> list[PairTree]:
    """Arrange pairs in sequences of at most `max_tokens`; `mining` drops pairs that are longer.

    Args:
        items: that the pairs refer to by number.
        pairs: in the order of their items.
        processor: of the checkpoint.
        limits: caps on media.
        max_tokens: of a sequence.
    """
    trees = []
    for number, group in groupby(pairs, key=lambda pair: pair.item):
        item = items[number]
        prefix = 1 + num_vision_tokens(item, processor, limits)
        for fitted, length in _first_fit(item, list(group), processor, max_tokens - prefix):
            both = tuple(one for pair in fitted for one in _conversations(item, pair))
            tree = replace(item, conversations=both, num_tokens=prefix + length)
            trees.append(PairTree(tree, tuple(fitted)))
    return trees


def _first_fit(
    item: Item, pairs: Sequence[Pair], processor: Processor, max_branch_tokens: int
) -> list[tuple[list[Pair], int]]:
    """Fit pairs into as many sequences as needed, each with the tokens of its branches."""
    bins: list[tuple[list[Pair], int]] = []
    for pair in pairs:
        both = _conversations(item, pair)
        length = sum(num_branch_tokens(one.messages, processor) for one in both)
        place = next(
            (k for k, (_, used) in enumerate(bins) if used + length <= max_branch_tokens), None
        )
        if place is None:
            bins.append(([pair], length))
        else:
            bins[place] = ([*bins[place][0], pair], bins[place][1] + length)
    return bins


def _conversations(item: Item, pair: Pair) -> tuple[Conversation, Conversation]:
    asked = item.conversations[pair.question]
    return replace(asked, answer=pair.chosen), replace(asked, answer=pair.rejected)
