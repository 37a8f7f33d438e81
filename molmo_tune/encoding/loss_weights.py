"""How much each answer token counts in the loss.

The released trainer gives the tokens of long answers less weight (``root_length``, 2/√n) and shares
weight among the branches of a message tree (``root_branches``, 1/√branches), but trains all
pointing, counting and tracking sets with one flat weight (0.2 next to other data). The loss is
divided by the sum of the weights, so a factor common to all samples changes nothing.
"""

from __future__ import annotations

import math

from molmo_tune.choices import Weighting

ROOT_LENGTH_FACTOR = 2.0


def answer_weight(
    weighting: Weighting, *, num_tokens: int, num_branches: int, weight: float = 1.0
) -> float:
    """Return the loss weight of each token of an answer.

    Args:
        weighting: the rule; ``root_both`` is the released default for all data but grounding.
        num_tokens: trained tokens of the conversation (see `token_stream` on end tokens).
        num_branches: branches kept in the message tree, 1 for a linear conversation.
        weight: factor of the data source.
    """
    if weighting in ("root_length", "root_both"):
        weight *= ROOT_LENGTH_FACTOR / math.sqrt(max(num_tokens, 1))
    if weighting in ("root_branches", "root_both"):
        weight /= math.sqrt(num_branches)
    return weight
