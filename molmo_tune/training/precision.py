"""The precision a run computes in, and the attention kernels that follow from it."""

from __future__ import annotations

from typing import Literal

import torch

from molmo_tune.model.attention_backends import Backend, resolve_backend
from molmo_tune.model.loading import resolve_dtype
from molmo_tune.recipe.sections import Recipe

Precision = Literal["32-true", "bf16-true", "bf16-mixed", "16-mixed"]
_COMPUTE_DTYPES = {
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "16-mixed": torch.float16,
    "32-true": torch.float32,
}


def precision_of(recipe: Recipe) -> Precision:
    """Return Lightning's name of the precision; ``auto`` follows the dtype of the base.

    With a 16-bit base it is mixed precision, because adapters are kept in float32.
    """
    if recipe.trainer.precision != "auto":
        return recipe.trainer.precision
    dtype = resolve_dtype(recipe.model.dtype)
    if dtype == torch.float32:
        return "32-true"
    return "bf16-mixed" if dtype == torch.bfloat16 else "16-mixed"


def attention_of(recipe: Recipe) -> Backend:
    """Return the attention backend for this machine's device; ``auto`` is the fastest exact one.

    Raises:
        UserError: the recipe names a backend that the GPU lacks.
    """
    asked, dtype = recipe.model.attention, _COMPUTE_DTYPES[precision_of(recipe)]
    if recipe.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return resolve_backend(asked, device="cpu", dtype=dtype)
    capability = torch.cuda.get_device_capability()
    return resolve_backend(asked, device="cuda", dtype=dtype, capability=capability)
