"""GPU behavior of PyTorch, emulated on fake CPU tensors.

Autograd refuses fake CUDA tensors without a driver, so a forecast computes with fake CPU tensors.
Nearly all operations use the same memory on both. The exceptions in Molmo 2 are here, and nowhere
else:

    attention    a fused kernel instead of the table of all scores: FlashAttention in 16-bit without
                 a mask, otherwise the memory-efficient kernel, which reads a mask as numbers
    dropout      saves a byte per element, not a copy in its dtype
    autocast     layer norms and vector norms are computed in float32
    pieces       `flash_attention` uses PyTorch's kernels, not the written-out formulas
    AdamW        updates all weights at once, with temporaries for all of them
    offloading   saved activations leave the device until the backward pass

`workspace` has the memory that kernels use inside.

Limitations: one kind of GPU. GPUs older than Ampere have no fused FlashAttention kernel, and 8-bit
layers (int8) count as the CPU computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from molmo_tune.model.flash_kernels import PyTorchFlash, computing_with

_MASK_STEP = 16  # the memory-efficient kernel needs mask rows in multiples of this


@contextmanager
def emulate_gpu(*, offload: bool) -> Iterator[None]:
    """Apply these rules during a ``with``, except for the optimizer's (`update_at_once`).

    Args:
        offload: keep saved activations off the device.
    """
    with ExitStack() as stack:
        stack.enter_context(computing_with(PyTorchFlash()))
        for place, name, function in _RULES:
            stack.enter_context(_replaced(place, name, function))
        if offload:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_offload, _reload))
        yield


def update_at_once(optimizer: torch.optim.Optimizer) -> None:
    """Use the ``foreach`` form of PyTorch's AdamW, as on a GPU; bitsandbytes has only one form."""
    for group in optimizer.param_groups:
        if "foreach" in group:
            group["foreach"] = True


@contextmanager
def _replaced(place: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a function in the library itself during a ``with``.

    Function modes end when a backward pass starts, and under gradient checkpointing that pass
    computes forward again.
    """
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
    """Turn a mask into numbers added to the scores, shared by all heads."""
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


def _in_float32(func: Callable[..., Any]) -> Callable[..., Any]:
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
    (F, "layer_norm", _in_float32(F.layer_norm)),
    (torch.linalg, "norm", _in_float32(torch.linalg.norm)),
)


def _offload(saved: torch.Tensor) -> Any:
    """Keep only the shape of a fake tensor; real ones are small."""
    if not isinstance(saved, FakeTensor):
        return saved
    return saved.size(), saved.stride(), saved.dtype


def _reload(kept: Any) -> torch.Tensor:
    if isinstance(kept, torch.Tensor):
        return kept
    size, stride, dtype = kept
    return torch.empty_strided(size, stride, dtype=dtype)
