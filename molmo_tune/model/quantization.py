"""QLoRA's frozen base: the decoder's linear layers in 4-bit or 8-bit, through bitsandbytes.

Nothing else is quantized. Vision tower and connector keep their precision: they are a tenth of the
weights, and points are only as exact as the vision features. So does the LM head, whose rows become
the digits of coordinates. After loading every layer is checked, because the libraries ignore a
misspelled option and the run would only look quantized.

Limitations: exports are not quantized here; a QLoRA adapter is merged into the original base.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from molmo_tune import choices
from molmo_tune.errors import UserError
from molmo_tune.model.molmo import Molmo

Quantize = choices.BaseQuantization
_KEPT_WHOLE = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
_LAYERS = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}


def quantization_config(kind: Quantize, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the quantization options of `from_pretrained`.

    Args:
        kind: ``nf4`` (with doubly quantized scales) or ``int8``.
        compute_dtype: that 4-bit layers multiply in.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    require_bitsandbytes("model.quantize", kind)
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_KEPT_WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=_KEPT_WHOLE,
    )


def require_bitsandbytes(key: str, value: str) -> None:
    """Check that bitsandbytes is installed.

    Args:
        key: recipe key that needs it.
        value: its value.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            key,
            f"{value} without bitsandbytes",
            "the package bitsandbytes",
            "run pip install 'molmo-tune[quant]'",
        )


def require_quantized(model: Molmo, kind: Quantize, compute_dtype: torch.dtype) -> None:
    """Check that exactly the decoder's linear layers are quantized, with the right compute dtype.

    Raises:
        RuntimeError: they are not; a library behaves differently.
    """
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        found = type(module).__name__
        wanted = _LAYERS[kind] if ".language_model.layers." in name else "Linear"
        if found != wanted:
            raise RuntimeError(f"{name} was loaded as {found}; expected {wanted}")
        if kind == "nf4" and wanted != "Linear" and module.compute_dtype != compute_dtype:
            raise RuntimeError(
                f"{name} computes in {module.compute_dtype}; expected {compute_dtype}"
            )


def keep_trainable_kernels(model: Molmo) -> None:
    """Keep 4-bit layers on kernels that have a backward pass.

    On a CPU with bfloat16 instructions bitsandbytes repacks a layer's weights in its first forward
    pass in evaluation mode, for a kernel without gradients that the layer then also uses in
    training: an evaluation before or during a run would make its gradients wrong, with only a
    warning.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (no type knows it)


def quantized_layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield names and modules of the quantized layers."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and type(module).__name__ in _LAYERS.values():
            yield name, module


def scales_of(layer: Any) -> Iterator[tuple[Any, str, torch.Tensor]]:
    """Yield a quantized layer's other tensors, each with the object and attribute that has it."""
    states = [getattr(layer.weight, "quant_state", None)]
    states.append(getattr(states[0], "state2", None))
    places = [(state, name) for state in states for name in ("absmax", "code", "offset")]
    places += [(holder, "SCB") for holder in (layer.weight, getattr(layer, "state", None))]
    for holder, name in places:
        tensor = getattr(holder, name, None)
        if isinstance(tensor, torch.Tensor):
            yield holder, name, tensor


def num_weights(parameter: torch.nn.Parameter) -> int:
    """Return the number of weights in a parameter; two 4-bit ones share a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
