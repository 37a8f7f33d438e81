"""Variable-length FlashAttention kernels, and the same arithmetic written out for the CPU.

Three providers with one signature: the `flash-attn` package if installed, PyTorch's own flash
kernels, and plain tensor operations on a CPU, so that tests of everything built on them need no
GPU. Forward returns output and log-sum-exp; backward takes *any* output and log-sum-exp, which
makes merging pieces exact (`molmo_tune.model.flash_attention`).

    T, S tokens of queries, keys    H, G heads of queries, keys (H a multiple of G)    D head size

Limitations: no dropout, no windows; `attention_rule` decides which token attends to which.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, Protocol

import torch

from molmo_tune.model.attention_rule import Piece

Tensors3 = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Kernel(Protocol):
    """A provider; ``q`` and output ``(T, H, D)``, ``k`` and ``v (S, G, D)``, lse ``(H, T)``."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, piece: Piece, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output and log-sum-exp of a piece."""

    def backward(
        self,
        grad: torch.Tensor,
        qkv: Tensors3,
        output: torch.Tensor,
        lse: torch.Tensor,
        piece: Piece,
        scale: float,
    ) -> Tensors3:
        """Return the gradients of q, k and v, given the *merged* output and log-sum-exp."""


_chosen: ContextVar[Kernel | None] = ContextVar("_chosen", default=None)


@contextmanager
def computing_with(kernel: Kernel) -> Iterator[None]:
    """Let `kernel_for` return this provider during a ``with``, on any device."""
    token = _chosen.set(kernel)
    try:
        yield
    finally:
        _chosen.reset(token)


def kernel_for(device: torch.device) -> Kernel:
    """Return the fastest provider that works on a device."""
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    if device.type != "cuda":
        return WrittenOut()
    has_package = importlib.util.find_spec("flash_attn") is not None
    return FlashAttnPackage() if has_package else PyTorchFlash()


class FlashAttnPackage:
    """The `flash-attn` package (2.7 or later)."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, piece: Piece, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernel`."""
        from flash_attn.flash_attn_interface import _flash_attn_varlen_forward

        result: Any = _flash_attn_varlen_forward(
            q,
            k,
            v,
            piece.query_starts,
            piece.key_starts,
            piece.longest_query,
            piece.longest_key,
            dropout_p=0.0,
            softmax_scale=scale,
            causal=piece.causal,
        )
        return result[0], result[1]

    def backward(
        self,
        grad: torch.Tensor,
        qkv: Tensors3,
        output: torch.Tensor,
        lse: torch.Tensor,
        piece: Piece,
        scale: float,
    ) -> Tensors3:
        """See `Kernel`."""
        from flash_attn.flash_attn_interface import _flash_attn_varlen_backward

        dq, dk, dv = (torch.empty_like(x) for x in qkv)
        _flash_attn_varlen_backward(
            grad,
            *qkv,
            output,
            lse,
            dq,
            dk,
            dv,
            piece.query_starts,
            piece.key_starts,
            piece.longest_query,
            piece.longest_key,
            dropout_p=0.0,
            softmax_scale=scale,
            causal=piece.causal,
            window_size_left=-1,
            window_size_right=-1,
            softcap=0.0,
            alibi_slopes=None,
            deterministic=False,
        )
        return dq, dk, dv


class PyTorchFlash:
    """PyTorch's own flash kernels, through the operators behind `torch.nn.attention.varlen`."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, piece: Piece, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernel`."""
        result = torch.ops.aten._flash_attention_forward(
            q,
            k,
            v,
            piece.query_starts,
            piece.key_starts,
            piece.longest_query,
            piece.longest_key,
            0.0,
            piece.causal,
            return_debug_mask=False,
            scale=scale,
        )
        return result[0], result[1]

    def backward(
        self,
        grad: torch.Tensor,
        qkv: Tensors3,
        output: torch.Tensor,
        lse: torch.Tensor,
        piece: Piece,
        scale: float,
    ) -> Tensors3:
        """See `Kernel`."""
        no_dropout = torch.zeros(2, dtype=torch.uint64, device=grad.device)
        result = torch.ops.aten._flash_attention_backward(
            grad,
            *qkv,
            output,
            lse,
            piece.query_starts,
            piece.key_starts,
            piece.longest_query,
            piece.longest_key,
            0.0,
            piece.causal,
            no_dropout,
            torch.empty(0, device=grad.device),
            scale=scale,
        )
        return result[0], result[1], result[2]


class WrittenOut:
    """The formulas, sequence by sequence, in float32, for tests and the CPU."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, piece: Piece, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernel`."""
        output = torch.empty_like(q)
        lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
        for rows, columns in _sequences(piece):
            scores = _scores(q[rows], k[columns], piece.causal, scale)
            lse[:, rows] = scores.logsumexp(-1)
            values = _per_query_head(v[columns], q.shape[1])
            output[rows] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).to(q.dtype)
        return output, lse

    def backward(
        self,
        grad: torch.Tensor,
        qkv: Tensors3,
        output: torch.Tensor,
        lse: torch.Tensor,
        piece: Piece,
        scale: float,
    ) -> Tensors3:
        """See `Kernel`."""
        dq, dk, dv = (torch.zeros_like(x, dtype=torch.float32) for x in qkv)
        q, k, v = qkv
        delta = (grad.float() * output.float()).sum(-1).T  # (H, T)
        for rows, columns in _sequences(piece):
            share = (_scores(q[rows], k[columns], piece.causal, scale) - lse[:, rows, None]).exp()
            keys, values = (_per_query_head(x[columns], q.shape[1]) for x in (k, v))
            grad_share = torch.einsum("qhd,khd->hqk", grad[rows].float(), values)
            grad_scores = share * (grad_share - delta[:, rows, None]) * scale
            dq[rows] = torch.einsum("hqk,khd->qhd", grad_scores, keys)
            dk[columns] = _summed(torch.einsum("hqk,qhd->khd", grad_scores, q[rows].float()), k)
            dv[columns] = _summed(torch.einsum("hqk,qhd->khd", share, grad[rows].float()), v)
        return dq, dk, dv


def _sequences(piece: Piece) -> list[tuple[slice, slice]]:
    starts = (piece.query_starts.tolist(), piece.key_starts.tolist())
    rows, columns = ([slice(a, b) for a, b in pairwise(s)] for s in starts)
    return list(zip(rows, columns, strict=True))


def _scores(q: torch.Tensor, k: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    """Return scores ``(H, T, S)`` in float32, minus infinity where a query does not read a key."""
    scores = torch.einsum("qhd,khd->hqk", q.float(), _per_query_head(k, q.shape[1])) * scale
    if causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores


def _per_query_head(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """``(S, G, D)`` → ``(S, H, D)``: each key head serves H/G neighboring query heads."""
    return x.float().repeat_interleave(num_heads // x.shape[1], dim=1)


def _summed(grad: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``(S, H, D)`` → ``(S, G, D)``: the backward pass of `_per_query_head`."""
    summed: torch.Tensor = grad.unflatten(1, (like.shape[1], -1)).sum(2)
    return summed
