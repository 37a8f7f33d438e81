"""A model of a checkpoint's shapes and types whose weights take no memory.

Loaded by the call that loads a real one (`loading.load_model`), only from tensors on PyTorch's
``meta`` device instead of files, so that what transformers, bitsandbytes and PEFT do to a model is
done to this one, too. `made_fake` then turns its tensors into fake ones, through which gradients,
types and shapes are computed as through real ones.

What it does not do: read tensors. A config.json is all that must be there, and for the released
models not even that (`released`).
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
    """The native configuration of a checkpoint, of which nothing else need be there.

    For a released model that is not in the hub's cache it is the built-in one: nothing is fetched.

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
        raise UserError(name, "is stored quantized", "a base in 16 or 32 bits to plan for")
    return config


def model_without_weights(
    config: MolmoConfig, *, dtype: torch.dtype, quantize: Quantize | None = None
) -> Molmo:
    """What `load_model` gives, on the ``meta`` device.

    Args:
        config: native.
        dtype: as for `load_model`.
        quantize: as for `load_model`.

    Raises:
        UserError: bitsandbytes is needed and not there.
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

    # bitsandbytes keeps its table of 8-bit numbers for the whole process, on the device that asks
    # for it first: were that `meta`, no real model could be quantized after this one.
    functional.name2qmap.setdefault("dynamic", functional.create_dynamic_map())
    quantizer = AutoHfQuantizer.from_config(quantization_config(kind, dtype), pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map={"": "meta"})
    for _, layer in quantized_layers(model):
        layer.weight._quantize("meta")  # what `to` does on the way to a device that is one
    require_quantized(model, kind, dtype)
    keep_trainable_kernels(model)


def made_fake(model: _Module, fake_mode: FakeTensorMode) -> _Module:
    """The same model with fake tensors of the CPU in the place of those on ``meta``.

    A quantized layer's weight is no longer of bitsandbytes' class, but keeps its attributes.
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
