"""What an operation allocates and drops before it returns, where that is large.

A dispatch mode sees an operation's results and nothing of its inside. Three kinds that a Molmo 2
meets take much inside, as their source says:

    logsumexp           one more table of its argument, which here are logits in 32 bits; this is
                        held to the profiler by a test
    flash, backward     the queries' gradients in 32 bits; keys' and values' once per query head
    4-bit layers        the layer's weights unpacked, as bitsandbytes does for many tokens

What it does not do: know the workspaces of cuBLAS or of the memory-efficient attention's way back,
or fused kernels on cards where PyTorch takes cuDNN's attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_HEAD_STEP = 32  # head sizes are rounded up to multiples of this


def bytes_within(func: Any, args: Any) -> int:
    """Bytes that an operation has at most beside its arguments and results."""
    formula = _FORMULAS.get(func.name())
    return formula(*args) if formula is not None else 0


def _logsumexp(table: torch.Tensor, *_: Any) -> int:
    return table.numel() * table.element_size()


def _flash_backward(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, *_: Any) -> int:
    """Of ``(T, H, D)`` or ``(B, H, L, D)``; heads come second in both."""
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
