"""Memory that an operation allocates and frees before it returns, where that is large.

A dispatch mode sees the results of an operation, not its inside. Three kinds of operations in a
Molmo 2 use much memory inside, according to their source:

    logsumexp         another table the size of its argument, here logits in float32; a test
                      compares it with the profiler
    flash, backward   the queries' gradients in float32; keys' and values' once per query head
    4-bit layers      the layer's unpacked weights, as bitsandbytes does for many tokens

Limitations: the workspaces of cuBLAS and of the memory-efficient attention's backward pass are not
included, nor are cuDNN's attention kernels on GPUs where PyTorch uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_HEAD_STEP = 32  # head sizes are rounded up to multiples of this


def workspace_bytes(func: Any, args: Any) -> int:
    """Return the most memory that an operation uses in addition to arguments and results."""
    formula = _FORMULAS.get(func.name())
    return formula(*args) if formula is not None else 0


def _logsumexp(table: torch.Tensor, *_: Any) -> int:
    return table.numel() * table.element_size()


def _flash_backward(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, *_: Any) -> int:
    """For ``(T, H, D)`` or ``(B, H, L, D)``; heads come second in both."""
    num_heads, head_size = q.shape[1], q.shape[-1]
    rounded = -(-head_size // _HEAD_STEP) * _HEAD_STEP
    summed = q.numel() // head_size * rounded * 4
    if k.shape[1] == num_heads:
        return summed
    return summed + 2 * k.numel() // k.shape[1] * num_heads * k.element_size()


def _unpacked(hidden: torch.Tensor, _packed: torch.Tensor, shape: list[int], *_: Any) -> int:
    return shape[0] * shape[1] * hidden.element_size()


_FORMULAS: dict[str, Callable[..., int]] = {
    "aten::logsumexp": _logsumexp,
    "aten::_flash_attention_backward": _flash_backward,
    "aten::_scaled_dot_product_flash_attention_backward": _flash_backward,
    "bitsandbytes::gemm_4bit": _unpacked,
}
