"""Log-probability of each answer of a message tree: the sum over its tokens.

Two answers to one question are two branches of one tree (`encoding.token_stream`): the image or
video is encoded once, and every branch reads the shared prefix and itself, so each answer is as
likely as in a sequence of its own. An answer's tokens are those with a loss weight, as in
supervised training: its words and its end token.

Only these positions go through the LM head, in chunks, in float32, as in `loss`.

    branch_ids    0 0 0 0 1 1 1 1 2 2 2        log-probs (A,) in the order of rows and branches
    loss_weights  0 0 0 0 0 w w w 0 w w   ->   [Σ of branch 1, Σ of branch 2]

Limitations: no packs, because branches of different examples share their numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from molmo_tune.encoding.encoded import Batch
from molmo_tune.model.loss import POSITIONS_PER_CHUNK, refuse_targets_outside


class AnswerLogProbs(NamedTuple):
    """Values for the A answers (branches) of a batch, each ``(A,)`` float32.

    ``sums``: log-probabilities in nats; ``num_tokens``: tokens of the answer; ``weights``: loss
    weight per token.
    """

    sums: torch.Tensor
    num_tokens: torch.Tensor
    weights: torch.Tensor


def answer_log_probs(
    hidden: torch.Tensor, head_weight: torch.Tensor, batch: Batch, chunk: int = POSITIONS_PER_CHUNK
) -> AnswerLogProbs:
    """Return the log-probabilities of the answers of a batch of trees, one per branch.

    Args:
        hidden: ``(B, L, d)`` last hidden states.
        head_weight: ``(V, d)`` rows of the LM head.
        batch: trees whose answer tokens all have the same weight (``flat``).
        chunk: positions computed together.

    Raises:
        ValueError: a target has no row in the LM head.
    """
    supervised = batch.loss_weights > 0
    picked, targets = hidden[supervised], batch.target_ids[supervised]
    refuse_targets_outside(targets, head_weight.shape[0])
    parts = [
        checkpoint(_log_probs, h, head_weight, t, use_reentrant=False)
        for h, t in zip(picked.split(chunk), targets.split(chunk), strict=True)
    ]
    place, num_answers = _answer_places(batch)
    place = place[supervised]
    zeros = hidden.new_zeros(num_answers, dtype=torch.float32)
    num_tokens = zeros.index_add(0, place, torch.ones_like(place, dtype=torch.float32))
    weights = zeros.index_add(0, place, batch.loss_weights[supervised])
    return AnswerLogProbs(
        zeros.index_add(0, place, torch.cat(parts)), num_tokens, weights / num_tokens.clamp(min=1)
    )


def _log_probs(
    hidden: torch.Tensor, head_weight: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    logits = F.linear(hidden, head_weight.to(hidden.dtype)).float()
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


def _answer_places(batch: Batch) -> tuple[torch.Tensor, int]:
    """Return each token's answer ``(B, L)``, numbered over all rows, and the number of answers."""
    num_branches = batch.branch_ids.max(dim=1).values
    before = num_branches.cumsum(0) - num_branches
    return before[:, None] + batch.branch_ids - 1, int(num_branches.sum())
