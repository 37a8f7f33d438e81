"""What PyTorch does differently on a GPU, done so on fake tensors of the CPU.

Autograd refuses fake CUDA tensors where there is no driver, so a forecast computes with fake CPU
tensors. Nearly all operations take and keep the same memory on both. Those that do not, as far as a
Molmo 2 meets them, are written down here, and nowhere else:

    attention    a fused kernel instead of the table of all scores: FlashAttention for 16 bits
                 without a mask, the memory-efficient one otherwise, which reads a mask as numbers
    dropout      keeps a byte per element, not a copy of its type
    autocast     layer norms and norms of vectors are computed in 32 bits
    pieces       `flash_attention` takes PyTorch's kernels, not the written-out formulas
    AdamW        updates all weights at once, with temporaries for all of them
    offloading   what is saved for the way back is not on the device until it is asked for

What kernels take inside of themselves is in `within`.

What it does not do: choose by the generation of the card. On cards older than Ampere the fused
FlashAttention kernel does not exist, and 8-bit layers (int8) are counted as the CPU computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from molmo_tune.model.flash_kernels import PyTorchFlash, computing_with

_MASK_STEP = 16  # the memory-efficient kernel wants rows of a mask in multiples of this


@contextmanager
def emulate_gpu(*, offload: bool) -> Iterator[None]:
    """The rules above, but for the optimizer's, for the time of a ``with``.

    Args:
        offload: keep what is saved for the way back off the device.
    """
    with ExitStack() as stack:
        stack.enter_context(computing_with(PyTorchFlash()))
        for place, name, function in _RULES:
            stack.enter_context(_replaced(place, name, function))
        if offload:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_put_away, _fetch))
        yield


def update_at_once(optimizer: torch.optim.Optimizer) -> None:
    """PyTorch's AdamW takes its ``foreach`` form on a GPU; bitsandbytes' has no such choice."""
    for group in optimizer.param_groups:
        if "foreach" in group:
            group["foreach"] = True


@contextmanager
def _replaced(place: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """In the library itself: function modes are left when a backward pass begins, and under
    gradient checkpointing that pass computes forward again."""
    own = getattr(place, name)
    setattr(place, name, function)
    try:
        yield
    finally:
        setattr(place, name, own)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    q, k, v = (_lowered(x) for x in (query, key, value))
    if attn_mask is None and q.dtype in (torch.bfloat16, torch.float16):
        kernel = torch.ops.aten._scaled_dot_product_flash_attention
        fused: torch.Tensor = kernel(q, k, v, dropout_p, is_causal, scale=scale)[0]
        return fused
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    bias = None if attn_mask is None else _as_numbers(attn_mask, q)
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    result: tuple[torch.Tensor, ...] = efficient(
        q, k, v, bias, needs_grad, dropout_p, is_causal, scale=scale
    )
    return result[0]


def _lowered(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x


def _as_numbers(mask: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """A mask as what is added to the scores, for every head without a copy."""
    if mask.dtype == torch.bool:
        zero = torch.zeros((), dtype=query.dtype)
        mask = torch.where(mask, zero, torch.full((), -torch.inf, dtype=query.dtype))
    length = mask.shape[-1]
    if length % _MASK_STEP:
        mask = F.pad(mask, (0, -length % _MASK_STEP))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], length)


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    return torch.native_dropout(input, p, training)[0] if training and p > 0 else input


def _in_32_bits(func: Callable[..., Any]) -> Callable[..., Any]:
    def computed(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return func(x, *args, **kwargs)
        raised = [a.float() if isinstance(a, torch.Tensor) else a for a in args]
        named = {k: a.float() if isinstance(a, torch.Tensor) else a for k, a in kwargs.items()}
        return func(x.float(), *raised, **named)

    return computed


_RULES: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (F, "scaled_dot_product_attention", _attention),
    (F, "dropout", _dropout),
    (F, "layer_norm", _in_32_bits(F.layer_norm)),
    (torch.linalg, "norm", _in_32_bits(torch.linalg.norm)),
)


def _put_away(saved: torch.Tensor) -> Any:
    """Of what is fake the form alone is kept; small numbers, which are real, are no matter."""
    if not isinstance(saved, FakeTensor):
        return saved
    return saved.size(), saved.stride(), saved.dtype


def _fetch(kept: Any) -> torch.Tensor:
    if isinstance(kept, torch.Tensor):
        return kept
    size, stride, dtype = kept
    return torch.empty_strided(size, stride, dtype=dtype)
