"""QLoRA's frozen base: the decoder's linear layers in 4 or 8 bits, through bitsandbytes.

Only they are stored small. The vision tower and the connector keep their precision: they are a
tenth of the weights, and points are as exact as what the eyes report. So does the LM head, whose
rows become the digits of coordinates. That this came true is checked after loading, layer by layer,
because a misspelled option is ignored by the libraries below and the run then merely looks
quantized.

What it does not do: quantize an export. A QLoRA adapter is merged into the base's own weights.
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
    """What `from_pretrained` is told.

    Args:
        kind: ``nf4`` (with doubly quantized scales) or ``int8``.
        compute_dtype: in which 4-bit layers multiply.

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
    """Check that the package is there for a value of a recipe's key.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            key,
            f"{value} needs the package bitsandbytes",
            "it to be installed",
            "pip install 'molmo-tune[quant]'",
        )


def require_quantized(model: Molmo, kind: Quantize, compute_dtype: torch.dtype) -> None:
    """Check that exactly the decoder's linear layers are quantized, and compute as asked.

    Raises:
        RuntimeError: they are not; a library has changed its ways.
    """
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        found = type(module).__name__
        wanted = _LAYERS[kind] if ".language_model.layers." in name else "Linear"
        if found != wanted:
            raise RuntimeError(f"{name} was loaded as {found}, not as {wanted}")
        if kind == "nf4" and wanted != "Linear" and module.compute_dtype != compute_dtype:
            raise RuntimeError(f"{name} computes in {module.compute_dtype}, not in {compute_dtype}")


def keep_trainable_kernels(model: Molmo) -> None:
    """Keep 4-bit layers on the kernels that have a way back.

    On a CPU with bfloat16 instructions bitsandbytes repacks a layer's weights at its first pass in
    evaluation mode, for a kernel without gradients that the layer then uses in training, too: an
    evaluation before or during a run would make its gradients wrong, with a mere warning.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (no type knows it)


def quantized_layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and modules of the layers that are stored small."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and type(module).__name__ in _LAYERS.values():
            yield name, module


def scales_of(layer: Any) -> Iterator[tuple[Any, str, torch.Tensor]]:
    """What a quantized layer keeps beside its weights: holder, attribute and tensor of each."""
    states = [getattr(layer.weight, "quant_state", None)]
    states.append(getattr(states[0], "state2", None))
    places = [(state, name) for state in states for name in ("absmax", "code", "offset")]
    places += [(holder, "SCB") for holder in (layer.weight, getattr(layer, "state", None))]
    for holder, name in places:
        tensor = getattr(holder, name, None)
        if isinstance(tensor, torch.Tensor):
            yield holder, name, tensor


def num_weights(parameter: torch.nn.Parameter) -> int:
    """Weights that a parameter stands for; two 4-bit ones share a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
