"""A model with a checkpoint's shapes and dtypes whose weights take no memory.

It is loaded like a real one (`loading.load_model`), but from tensors on PyTorch's ``meta`` device
instead of files, so that transformers, bitsandbytes and PEFT treat it the same. `made_fake` then
replaces its tensors with fake ones, for which PyTorch computes gradients, dtypes and shapes as for
real ones.

Limitations: no tensors are read. A config.json is enough, and the released models do not even need
that (`released_configs`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import try_to_load_from_cache
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Molmo2ForConditionalGeneration
from transformers.quantizers import AutoHfQuantizer

from molmo_tune.errors import UserError
from molmo_tune.model.loading import checkpoint_config, checkpoint_source, quiet_loading
from molmo_tune.model.molmo import Molmo, MolmoConfig
from molmo_tune.model.quantization import (
    Quantize,
    keep_trainable_kernels,
    quantization_config,
    quantized_layers,
    require_quantized,
    scales_of,
)
from molmo_tune.model.released_configs import RELEASED, released_config

_Module = TypeVar("_Module", bound=torch.nn.Module)


def config_without_weights(name: str) -> MolmoConfig:
    """Return the native configuration of a checkpoint, which needs no other file.

    A released model that is not in the local cache has a built-in one: nothing is downloaded.

    Raises:
        UserError: no such checkpoint, another architecture, or one that is stored quantized.
    """
    source = checkpoint_source(name)
    is_here = Path(source).is_dir() or isinstance(
        try_to_load_from_cache(source, "config.json"), str
    )
    config = checkpoint_config(name) if is_here or name not in RELEASED else None
    if config is None:
        released: MolmoConfig = released_config(RELEASED[name])
        return released
    if getattr(config, "quantization_config", None):
        raise UserError(name, "is stored quantized", "a 16-bit or 32-bit base")
    return config


def model_without_weights(
    config: MolmoConfig, *, dtype: torch.dtype, quantize: Quantize | None = None
) -> Molmo:
    """Return what `load_model` returns, on the ``meta`` device.

    Args:
        config: native.
        dtype: as for `load_model`.
        quantize: as for `load_model`.

    Raises:
        UserError: bitsandbytes is needed and not installed.
    """
    with torch.device("meta"):
        shapes = Molmo2ForConditionalGeneration(config).state_dict()
    with quiet_loading():
        model = Molmo2ForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict={name: tensor.to(dtype) for name, tensor in shapes.items()},
            dtype=dtype,
            attn_implementation="sdpa",
            device_map={"": "meta"},
        )
    if quantize:
        _quantize(model, quantize, dtype)
    loaded: Molmo = model.requires_grad_(False).eval()
    return loaded


def _quantize(model: Molmo, kind: Quantize, dtype: torch.dtype) -> None:
    from bitsandbytes import functional

    # bitsandbytes keeps one table of 8-bit numbers per process, on the device that needs it first:
    # if that were `meta`, no real model could be quantized afterwards.
    functional.name2qmap.setdefault("dynamic", functional.create_dynamic_map())
    quantizer = AutoHfQuantizer.from_config(quantization_config(kind, dtype), pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map={"": "meta"})
    for _, layer in quantized_layers(model):
        layer.weight._quantize("meta")  # as `to` does for a real device
    require_quantized(model, kind, dtype)
    keep_trainable_kernels(model)


def made_fake(model: _Module, fake_mode: FakeTensorMode) -> _Module:
    """Replace the tensors on ``meta`` with fake CPU tensors, in place.

    The weight of a quantized layer loses bitsandbytes' class but keeps its attributes.
    """
    known: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            with fake_mode:
                known[id(tensor)] = torch.empty_strided(
                    tensor.size(), tensor.stride(), dtype=tensor.dtype
                )
        return known[id(tensor)]

    for _, layer in quantized_layers(model):
        for holder, name, tensor in list(scales_of(layer)):
            setattr(holder, name, fake(tensor))
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = _fake_parameter(parameter, fake(parameter))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)
    return model


def _fake_parameter(parameter: Any, contents: torch.Tensor) -> torch.nn.Parameter:
    made = torch.nn.Parameter(contents, requires_grad=parameter.requires_grad)
    for name, value in vars(parameter).items():
        setattr(made, name, contents if name == "CB" and value is not None else value)
    return made
