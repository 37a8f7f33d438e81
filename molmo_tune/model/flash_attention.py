"""Exact Molmo 2 attention on FlashAttention kernels.

The allowed pairs are split into pieces that a flash kernel can compute
(`molmo_tune.model.attention_rule.pieces`). Each gives an output o_p and a log-sum-exp l_p of its
scores; since the pieces are disjoint, the attention over all of them is

    l = log Σ_p exp l_p          o = Σ_p exp(l_p - l) · o_p

The backward pass needs no derivative of that merge: a flash backward kernel recomputes its
probabilities as exp(score - l), so given the *merged* o and l it returns each piece's exact part of
the gradients, and the parts add up. Cost: every pair is computed once, and the outputs of the
smaller pieces are read and added.

Limitations: no dropout on attention (no released Molmo 2 has it) and no key-value cache.
"""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.model.attention_rule import Piece
from molmo_tune.model.flash_kernels import Kernel, kernel_for


def flash_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pieces: tuple[Piece, ...], scale: float
) -> torch.Tensor:
    """Return the attention output ``(B, L, H, D)`` for ``q (B, H, L, D)``, ``k, v (B, G, L, D)``.

    Tokens in no piece (padding) get zeros. Autocast lowers the inputs, as it does for SDPA.
    """
    batch, _, length, _ = q.shape
    kind = q.device.type
    if torch.is_autocast_enabled(kind):
        q, k, v = (x.to(torch.get_autocast_dtype(kind)) for x in (q, k, v))
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]  # (B·L, heads, D)
    output: torch.Tensor = _Merged.apply(*flat, pieces, scale, kernel_for(q.device))
    rows: torch.Tensor = output.unflatten(0, (batch, length))
    return rows


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        pieces: tuple[Piece, ...],
        scale: float,
        kernel: Kernel,
    ) -> torch.Tensor:
        output = torch.zeros(q.shape, dtype=torch.float32, device=q.device)
        shape = (q.shape[1], q.shape[0])
        lse = torch.full(shape, -torch.inf, dtype=torch.float32, device=q.device)
        for piece in pieces:
            out, piece_lse = kernel.forward(*_picked((q, k, v), piece), piece=piece, scale=scale)
            _merge(output, lse, out, piece_lse, piece.queries)
        result = output.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, lse)
        ctx.pieces, ctx.scale, ctx.kernel = pieces, scale, kernel
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        q, k, v, output, lse = ctx.saved_tensors
        grad = grads[0].contiguous()
        totals = [torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (q, k, v)]
        for piece in ctx.pieces:
            shares = ctx.kernel.backward(
                grad[piece.queries],
                _picked((q, k, v), piece),
                output[piece.queries],
                lse[:, piece.queries].contiguous(),
                piece,
                ctx.scale,
            )
            places = (piece.queries, piece.keys, piece.keys)
            for total, share, place in zip(totals, shares, places, strict=True):
                total.index_add_(0, place, share.float())
        return *(t.to(x.dtype) for t, x in zip(totals, (q, k, v), strict=True)), None, None, None


def _picked(
    qkv: tuple[torch.Tensor, torch.Tensor, torch.Tensor], piece: Piece
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = qkv
    return q[piece.queries], k[piece.keys], v[piece.keys]


def _merge(
    output: torch.Tensor,
    lse: torch.Tensor,
    new: torch.Tensor,
    new_lse: torch.Tensor,
    places: torch.Tensor,
) -> None:
    """Merge a piece's output into that of the pieces before it, in place."""
    old_lse = lse[:, places]
    merged = torch.logaddexp(old_lse, new_lse)
    kept, added = ((x - merged).exp().T[..., None] for x in (old_lse, new_lse))
    output[places] = output[places] * kept + new.float() * added
    lse[:, places] = merged
