"""The loss: weighted cross-entropy and z-loss at supervised positions only, as *sums*.

A batch of 16k tokens has a few hundred targets with weight. Only these positions go through the LM
head, in chunks, in float32; full logits would take 10 GB. The head has rows for the base vocabulary
only, so a target beyond it (a vision token) is a defect of the data and an error.

Sums, not means: an optimizer step can have several micro-batches on several devices with very
different numbers of targets, and the mean of their means is not the mean. The training module
divides once by the weight of the whole step (`molmo_tune.training.molmo_module`).

    loss = Σ w·CE / Σ w  +  z · Σ w·logsumexp² / Σ w
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

POSITIONS_PER_CHUNK = 1024


class LossSums(NamedTuple):
    """Sums over the supervised positions of a batch (scalars, float32).

    ``total`` is differentiated: ``cross_entropy + z_loss·z_squared``. A named tuple, because FSDP
    looks for tensors in a forward's result only inside tuples.
    """

    total: torch.Tensor
    cross_entropy: torch.Tensor
    weight: torch.Tensor
    num_targets: int


def loss_sums(
    hidden: torch.Tensor,
    head_weight: torch.Tensor,
    target_ids: torch.Tensor,
    loss_weights: torch.Tensor,
    *,
    z_loss: float,
    chunk: int = POSITIONS_PER_CHUNK,
) -> LossSums:
    """Return sums of the weighted losses.

    Args:
        hidden: ``(B, L, d)`` last hidden states.
        head_weight: ``(V, d)`` rows of the LM head.
        target_ids: ``(B, L)`` already shifted.
        loss_weights: ``(B, L)``; positions with weight 0 are not computed.
        z_loss: factor of the squared log-partition term.

    Raises:
        ValueError: a supervised target has no row in the LM head.
    """
    supervised = loss_weights > 0
    picked, targets = hidden[supervised], target_ids[supervised]
    weights = loss_weights[supervised].float()
    refuse_targets_outside(targets, head_weight.shape[0])
    entropy = z_squared = hidden.new_zeros((), dtype=torch.float32)
    for h, t, w in zip(
        picked.split(chunk), targets.split(chunk), weights.split(chunk), strict=True
    ):
        ce, z = checkpoint(_chunk_sums, h, head_weight, t, w, use_reentrant=False)
        entropy, z_squared = entropy + ce, z_squared + z
    total = entropy + z_loss * z_squared
    if len(targets) == 0:  # keep the graph whole for data-parallel training
        total = total + 0.0 * hidden.float().sum()
    return LossSums(total, entropy.detach(), weights.sum(), len(targets))


def _chunk_sums(
    hidden: torch.Tensor, head_weight: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = F.linear(hidden, head_weight.to(hidden.dtype)).float()
    log_partition = logits.logsumexp(-1)
    target_logits = logits.gather(-1, targets[:, None]).squeeze(-1)
    return (weights * (log_partition - target_logits)).sum(), (weights * log_partition**2).sum()


def refuse_targets_outside(targets: torch.Tensor, vocab_size: int) -> None:
    """Check that the LM head has a row for every target.

    Raises:
        ValueError: it has not.
    """
    if len(targets) and (int(targets.max()) >= vocab_size or int(targets.min()) < 0):
        raise ValueError(
            f"a supervised target has id {int(targets.max())}, but the LM head has {vocab_size} "
            "rows: vision tokens must have weight 0"
        )
