"""16-bit weights computed in float32, so that large models take half the memory.

Verification to 1e-4 needs float32 arithmetic, and in float32 an 8B model takes 35 GB. Weights that
are 16-bit in their files can stay so in memory: each decoder matrix is converted to float32 for the
forward pass of its layer and back afterwards. The result is bit-identical to the float32 model's.
Parameters that are small or used outside their own layer (embedding, head, connector, vision tower,
norms, adapters) are kept in float32.

Limitations: no gain for files in float32, and no gradients.
"""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.model.molmo import Molmo


def keep_16bit(model: Molmo) -> Molmo:
    """Make a 16-bit model compute in float32, in place; returns the model."""
    for name, module in model.named_modules():
        if _is_decoder_matrix(name, module):
            module.register_forward_pre_hook(_to_float32)
            module.register_forward_hook(_restore)
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
    return model


def _is_decoder_matrix(name: str, module: torch.nn.Module) -> bool:
    return ".language_model.layers." in name and isinstance(module, torch.nn.Linear)


def _to_float32(module: Any, _: Any) -> None:
    module.stored_16bit = [parameter.data for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.data = parameter.data.float()


def _restore(module: Any, _: Any, __: Any) -> None:
    for parameter, data in zip(module.parameters(), module.stored_16bit, strict=True):
        parameter.data = data
    del module.stored_16bit
