"""Three ways to compute the same attention, and which one a device gets.

    sdpa    PyTorch's scaled-dot-product attention, one example at a time (`rectangle_attention`).
            Works everywhere, in every precision; time grows with the square of each example.
    flex    FlexAttention under a block mask made once per batch; skips blocks without pairs. On a
            GPU only: its CPU code has no backward pass, so there the predicate becomes a mask.
    flash   FlashAttention kernels on disjoint pieces, merged exactly (`flash_attention`). On GPUs
            since Ampere, in 16-bit; on a CPU the same arithmetic is written out, for tests.

The decoder's configuration keeps the choice, as in transformers, so training, tests and benchmarks
switch with `use_backend` and call the same `hidden_states`. Generation has a cache and no packs;
there all three are transformers' own masks and SDPA.

Limitations: the vision tower always uses SDPA; it reads whole crops without a mask, for which SDPA
is exact and selects its flash kernel by itself.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from molmo_tune import choices
from molmo_tune.encoding.encoded import Batch
from molmo_tune.errors import UserError
from molmo_tune.model.attention_rule import allows, dense_mask, pieces, rectangles
from molmo_tune.model.flash_attention import flash_attention
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.rectangle_attention import rectangle_attention

Backend = choices.AttentionBackend
BACKENDS: tuple[Backend, ...] = choices.words_of(Backend)
_NAMES: dict[Backend, str] = {  # transformers looks for any name with "flash" on the Hub
    "sdpa": "molmo_tune_rectangles",
    "flex": "molmo_tune_blocks",
    "flash": "molmo_tune_pieces",
}
FLASH_CAPABILITY = (8, 0)
"""Compute capability of the oldest GPUs with FlashAttention kernels, Ampere."""

_NO_MASK_NEEDED = (1, 1, 1, 1)  # transformers leaves a four-dimensional mask alone


def use_backend(model: Molmo, backend: Backend) -> None:
    """Set the backend of the decoder of `Molmo2ForConditionalGeneration`."""
    model.model.language_model.set_attn_implementation(_NAMES[backend])


def backend_of(model: Molmo) -> Backend:
    """Return what `use_backend` set; ``sdpa`` for a model as transformers loads it."""
    name = model.model.language_model.config._attn_implementation
    return next((backend for backend in BACKENDS if _NAMES[backend] == name), "sdpa")


def resolve_backend(
    asked: Literal["auto"] | Backend,
    *,
    device: str,
    dtype: torch.dtype,
    capability: tuple[int, int] = FLASH_CAPABILITY,
) -> Backend:
    """Return the backend to use; ``auto`` is flash where its kernels run, else sdpa.

    Args:
        asked: the recipe's `model.attention`.
        device: ``cpu`` or ``cuda``.
        dtype: that attention is computed in.
        capability: compute capability of the GPU.

    Raises:
        UserError: flash on a GPU in float32 or on one older than Ampere: no kernel exists.
    """
    half = dtype in (torch.bfloat16, torch.float16)
    is_new = capability >= FLASH_CAPABILITY
    if asked == "auto":
        return "flash" if device == "cuda" and half and is_new else "sdpa"
    if asked == "flash" and device == "cuda" and not is_new:
        raise UserError(
            "model.attention",
            f"flash on a GPU of capability {capability[0]}.{capability[1]}",
            f"at least {FLASH_CAPABILITY[0]}.{FLASH_CAPABILITY[1]} (Ampere)",
            "set model.attention: sdpa",
        )
    if asked == "flash" and device == "cuda" and not half:
        raise UserError(
            "model.attention",
            f"flash with {str(dtype).removeprefix('torch.')} on a GPU",
            "bfloat16 or float16",
            "set trainer.precision: bf16-mixed, or model.attention: sdpa",
        )
    return asked


def attention_inputs(model: Molmo, batch: Batch) -> dict[str, Any]:
    """What the decoder's ``forward`` is given so that only allowed pairs meet; once per batch."""
    who = (batch.example_ids, batch.branch_ids, batch.is_vision)
    backend = backend_of(model)
    if backend == "flash":
        mask = torch.ones(_NO_MASK_NEEDED, dtype=torch.bool, device=batch.input_ids.device)
        return {"attention_mask": mask, "flash_pieces": pieces(*who)}
    if backend == "flex":
        rows, length = batch.input_ids.shape
        make = create_block_mask if batch.input_ids.is_cuda else create_mask
        device = str(batch.input_ids.device)
        return {"attention_mask": make(allows(*who), rows, 1, length, length, device=device)}
    if model.model.language_model.config._attn_implementation == _NAMES["sdpa"]:
        mask = torch.ones(_NO_MASK_NEEDED, dtype=torch.bool, device=batch.input_ids.device)
        return {"attention_mask": mask, "rectangles": rectangles(*who)}
    return {"attention_mask": dense_mask(*who)}  # a model as transformers loads it


def _flash(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    found = rest.pop("flash_pieces", None)
    if found is None:  # generation
        return _sdpa(module, query, key, value, attention_mask, scaling=scaling, **rest)
    return flash_attention(query, key, value, found, scaling), None


def _rectangles(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    found = rest.pop("rectangles", None)
    if found is None:  # generation
        return _sdpa(module, query, key, value, attention_mask, scaling=scaling, **rest)
    return rectangle_attention(query, key, value, found, scaling), None


def _flex(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    if not isinstance(attention_mask, BlockMask):  # generation, or a CPU
        return _sdpa(module, query, key, value, attention_mask, scaling=scaling, **rest)
    output = flex_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **rest
    )[0]
    return output, None


def _sdpa(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    return sdpa_attention_forward(*args, **kwargs)[0], None


for _name, _function in (
    (_NAMES["sdpa"], _rectangles),
    (_NAMES["flex"], _flex),
    (_NAMES["flash"], _flash),
):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, sdpa_mask)
