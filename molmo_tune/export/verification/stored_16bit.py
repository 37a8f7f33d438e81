"""Large models in half the memory, computed in float32 all the same: weights at rest in 16 bits.

A proof to 1e-4 needs float32 arithmetic, and in float32 an 8B model takes 35 GB. Weights that lie
in 16 bits in their files lose nothing by staying so: each of the decoder's matrices is widened when
its layer is computed and put back afterwards. The result is bit for bit the float32 model's.
What is small or is reached by other ways than its layer (embedding, head, connector, vision tower,
norms, adapters) is held in float32.

What it does not do: help where the files are float32 already, or gradients.
"""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.model.loading import load_model
from molmo_tune.model.molmo import Molmo

LARGE = 2_000_000_000
"""Weights from which on a model is held so: 8 GB in float32."""


def load_for_proof(name: str, stored: torch.dtype, num_weights: int) -> Molmo:
    """A checkpoint's model that computes in float32, large ones at rest in their own type.

    Args:
        name: hub id, folder or ``tiny``.
        stored: type of the weights in the files.
        num_weights: of the model.
    """
    if num_weights < LARGE or stored == torch.float32:
        return load_model(name)
    return keep_16bit(load_model(name, dtype=stored))


def keep_16bit(model: Molmo) -> Molmo:
    """Let a 16-bit model compute in float32; the same model."""
    for name, module in model.named_modules():
        if _is_decoder_matrix(name, module):
            module.register_forward_pre_hook(_widen)
            module.register_forward_hook(_put_back)
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
    return model


def _is_decoder_matrix(name: str, module: torch.nn.Module) -> bool:
    return ".language_model.layers." in name and isinstance(module, torch.nn.Linear)


def _widen(module: Any, _: Any) -> None:
    module.at_rest = [parameter.data for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.data = parameter.data.float()


def _put_back(module: Any, _: Any, __: Any) -> None:
    for parameter, data in zip(module.parameters(), module.at_rest, strict=True):
        parameter.data = data
    del module.at_rest
