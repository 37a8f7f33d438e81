"""Molmo 2's attention on PyTorch's scaled-dot-product attention, one example at a time.

One dense mask over a packed row computes every pair of the row, although most of them belong to
different examples: rows of 4,096 tokens were slower than one sample per row. Here each example is a
square of its own, and the branches of a tree are one rectangle (`molmo_tune.model.attention_rule`).

Limitations: no dropout on attention (no released Molmo 2 has it) and no key-value cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from molmo_tune.model.attention_rule import Rectangle


def rectangle_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rectangles: Sequence[Rectangle],
    scale: float,
) -> torch.Tensor:
    """Return the attention output ``(B, L, H, D)`` for ``q (B, H, L, D)``, ``k, v (B, G, L, D)``.

    Tokens in no rectangle (padding) get zeros.
    """
    groups = q.shape[1] // k.shape[1]
    if groups > 1:  # with a mask, GPUs have no kernel that shares key heads
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    rows = [
        torch.cat(list(_parts(q[row : row + 1], k, v, row, rectangles, scale)), dim=2)
        for row in range(len(q))
    ]
    return torch.cat(rows).transpose(1, 2).contiguous()


def _parts(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    row: int,
    rectangles: Sequence[Rectangle],
    scale: float,
) -> Iterator[torch.Tensor]:
    """Yield consecutive outputs ``(1, H, n, D)`` of one row, padding included."""
    done, length = 0, q.shape[2]
    for one in rectangles:
        if one.row != row:
            continue
        if one.queries.start > done:
            yield torch.zeros_like(q[:, :, done : one.queries.start])
        yield F.scaled_dot_product_attention(
            q[:, :, one.queries],
            k[row : row + 1, :, one.keys],
            v[row : row + 1, :, one.keys],
            attn_mask=one.mask,
            is_causal=one.mask is None,
            scale=scale,
        )
        done = one.queries.stop
    if done < length:
        yield torch.zeros_like(q[:, :, done:])
