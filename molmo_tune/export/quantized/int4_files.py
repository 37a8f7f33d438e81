"""W4A16 checkpoints: 4-bit decoder weights, packed by compressed-tensors.

Each matrix is packed, eight values to 32 bits, with its shape stored as an extra tensor. A reader
of the hub layout could not split a packed q‖k‖v matrix, so the layout is the native one. Columns
share a scale in groups of 128, the usual size, or in smaller groups if the width of the model is
not a multiple of 128.

Limitations: vLLM reads only the hub layout, so it cannot serve these files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from molmo_tune.errors import UserError
from molmo_tune.export.quantized.compressed_format import (
    compressed_config,
    quantize_in_place,
    scheme_of,
)
from molmo_tune.model.loading import load_model
from molmo_tune.model.molmo import Molmo

_GROUPS = (128, 64, 32)


def write_int4(merged: Path, out: Path) -> dict[str, Any]:
    """Write the weights; return the `quantization_config` of `config.json`.

    Args:
        merged: checkpoint in the native layout.
        out: existing folder.

    Raises:
        UserError: the width of a matrix is not a multiple of 32.
    """
    from compressed_tensors.compressors import ModelCompressor

    model = load_model(str(merged), dtype=torch.bfloat16)
    config = _config(model)
    quantize_in_place(model, config)
    ModelCompressor(quantization_config=config).compress_model(model)
    save_torch_state_dict(model.state_dict(), out, metadata={"format": "pt"})
    written: dict[str, Any] = _config(model).to_dict()
    return written


def int4_in_place(model: Molmo) -> Molmo:
    """Quantize a model in memory by the library itself, for comparison; returns the model."""
    return quantize_in_place(model, _config(model))


def _config(model: Molmo) -> Any:
    return compressed_config(scheme_of("W4A16", _group_size(model)), "pack-quantized")


def _group_size(model: Molmo) -> int:
    text = model.config.text_config
    widths = (
        text.hidden_size,
        text.intermediate_size,
        text.num_attention_heads * text.head_dim,
    )
    for size in _GROUPS:
        if not any(width % size for width in widths):
            return size
    found = f"matrices of {', '.join(map(str, widths))} columns"
    expected = f"multiples of {_GROUPS[-1]}, the smallest group that shares a scale"
    raise UserError("--quantize", found, expected, "use fp8, nf4 or int8")
