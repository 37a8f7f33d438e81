"""Who may attend to whom: the one place that decides it.

Molmo 2 is a causal language model with one exception: all vision tokens of an example (patches,
column and start/end tokens of all its images, crops and frames) see each other in both directions.
Packs and message trees add two walls. With example number e, branch number b (0 = the prefix that
all branches share) and position in the row i, the query q may read the key k when

    e_q = e_k                      nothing crosses examples
    k ≤ q, or both are vision      causal, with the vision overlay
    b_k = 0 or b_k = b_q           the prefix and one's own branch

This is written out as a dense mask for PyTorch's scaled-dot-product attention. It is exact for
every input; its cost is one byte per pair of tokens. FlashAttention cannot take such a mask and
transformers silently drops the overlay there, so no such backend is offered here.
"""

from __future__ import annotations

import torch


def dense_mask(
    example_ids: torch.Tensor, branch_ids: torch.Tensor, is_vision: torch.Tensor
) -> torch.Tensor:
    """Boolean mask ``(B, 1, L, L)``, true where the query (row) may read the key (column).

    Args:
        example_ids: ``(B, L)``, -1 on padding.
        branch_ids: ``(B, L)``, 0 on shared prefixes.
        is_vision: ``(B, L)`` bool.

    Padding may read itself only, so that no row of the softmax is empty.
    """
    length = example_ids.shape[1]
    index = torch.arange(length, device=example_ids.device)
    causal = index[:, None] >= index[None, :]
    overlay = is_vision[:, :, None] & is_vision[:, None, :]
    same_example = example_ids[:, :, None] == example_ids[:, None, :]
    keys_branch = branch_ids[:, None, :]
    same_branch = (keys_branch == 0) | (keys_branch == branch_ids[:, :, None])
    real = (example_ids >= 0)[:, None, :]
    allowed = (causal | overlay) & same_example & same_branch & real
    itself = index[:, None] == index[None, :]
    return (allowed | itself)[:, None]
