"""Pairs → items whose conversations come two by two: better, worse, better, worse, …

Such an item is encoded as every item is: a message tree whose branches share the medium and are
trained on answers and end tokens alone. So prompts, pixels and targets of pairs are those of
supervised training by construction, and all pairs about a medium cost one vision pass. Pairs that
do not fit one sequence together are spread over several of the same medium.

Pure, and the same for the same pairs: a resumed run finds the same items in the same order.
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
    """One sequence to be: ``item`` with conversations 2k (better) and 2k+1 (worse) of pair k."""

    item: Item
    pairs: tuple[Pair, ...]

    def reference(self) -> NDArray[np.float32]:
        """Log-probabilities ``(Q, 2)`` by the reference.

        Raises:
            ValueError: they are not known yet.
        """
        known = [pair.reference for pair in self.pairs if pair.reference is not None]
        if len(known) < len(self.pairs):
            raise ValueError(f"{self.item.sample.id}: the reference has not been asked yet")
        return np.array(known, np.float32).reshape(-1, 2)


def pair_trees(
    items: Sequence[Item],
    pairs: Sequence[Pair],
    processor: Processor,
    limits: MediaLimits,
    *,
    max_tokens: int,
) -> list[PairTree]:
    """Sequences of at most `max_tokens`, into which every pair fits alone (`mining` sees to that).

    Args:
        items: of which pairs hold numbers.
        pairs: in the order of their items.
        processor: of the checkpoint.
        limits: caps on media.
        max_tokens: of a sequence.
    """
    trees = []
    for number, group in groupby(pairs, key=lambda pair: pair.item):
        item = items[number]
        prefix = 1 + num_vision_tokens(item, processor, limits)
        for some, length in _filled(item, list(group), processor, max_tokens - prefix):
            both = tuple(one for pair in some for one in _conversations(item, pair))
            tree = replace(item, conversations=both, num_tokens=prefix + length)
            trees.append(PairTree(tree, tuple(some)))
    return trees


def _filled(
    item: Item, pairs: Sequence[Pair], processor: Processor, room: int
) -> list[tuple[list[Pair], int]]:
    """First fit of pairs into sequences that have so much room behind their medium."""
    bins: list[tuple[list[Pair], int]] = []
    for pair in pairs:
        both = _conversations(item, pair)
        length = sum(num_branch_tokens(one.messages, processor) for one in both)
        place = next((k for k, (_, used) in enumerate(bins) if used + length <= room), None)
        if place is None:
            bins.append(([pair], length))
        else:
            bins[place] = ([*bins[place][0], pair], bins[place][1] + length)
    return bins


def _conversations(item: Item, pair: Pair) -> tuple[Conversation, Conversation]:
    asked = item.conversations[pair.question]
    return replace(asked, answer=pair.chosen), replace(asked, answer=pair.rejected)
