"""The loss of a pair of answers: direct preference optimization, as published.

Rafailov et al. 2023 (arXiv:2305.18290, equation 7), with π the model, ρ the reference it started
from, and c and r the chosen and rejected answer to one question:

    reward(a) = β · (log π(a) - log ρ(a))
    loss      = -log σ(reward(c) - reward(r))  +  λ · -log π(c) / tokens(c)

The first term depends only on differences, so the chosen answer can become *less* likely as long as
the rejected one falls further. That happens in grounding, where both share most of their tokens;
the second term (after Pang et al. 2024, arXiv:2404.19733) keeps the chosen answer likely.

Both are TRL's losses ``sigmoid`` and ``sft``, which exist only inside its trainers; tests compare
values and gradients with them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F


class PairLosses(NamedTuple):
    """Losses of Q pairs, each ``(Q,)`` float32; only ``total`` has a gradient.

    ``total``: both terms. ``preference``: the first term, ln 2 for a model that is the reference.
    ``chosen_reward`` and ``rejected_reward``: as above, in nats times beta.
    """

    total: torch.Tensor
    preference: torch.Tensor
    chosen_reward: torch.Tensor
    rejected_reward: torch.Tensor


def pair_losses(
    log_probs: torch.Tensor,
    reference: torch.Tensor,
    num_chosen_tokens: torch.Tensor,
    *,
    beta: float,
    supervised_weight: float,
) -> PairLosses:
    """Return the losses of Q pairs.

    Args:
        log_probs: ``(Q, 2)`` of the chosen and the rejected answer, by the model.
        reference: ``(Q, 2)`` the same, by the reference; a constant.
        num_chosen_tokens: ``(Q,)`` tokens of the chosen answers.
        beta: β.
        supervised_weight: λ.
    """
    rewards = beta * (log_probs - reference)
    preference = -F.logsigmoid(rewards[:, 0] - rewards[:, 1])
    supervised = -log_probs[:, 0] / num_chosen_tokens
    total = preference + supervised_weight * supervised
    return PairLosses(total, preference.detach(), *rewards.detach().unbind(1))
