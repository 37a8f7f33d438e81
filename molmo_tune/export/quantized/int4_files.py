"""W4A16 checkpoints: the decoder's weights in 4 bits, packed as compressed-tensors does it.

Whole matrices are packed, eight numbers to 32 bits, and their shape lies beside them as a tensor.
No reader of the released layout could split that where q, k and v are one matrix, so the layout is
transformers' own. Columns share a scale in groups of 128, as is usual; smaller ones only where a
model's width is no multiple of that.

What it does not do: files for vLLM, which reads the released layout only.
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
    """Write the weights; returns what `config.json` says of them.

    Args:
        merged: a checkpoint in the native layout.
        out: existing folder.

    Raises:
        UserError: the widths of the model's matrices are no multiples of 32.
    """
    from compressed_tensors.compressors import ModelCompressor

    model = load_model(str(merged), dtype=torch.bfloat16)
    config = _config(model)
    quantize_in_place(model, config)
    ModelCompressor(quantization_config=config).compress_model(model)
    save_torch_state_dict(model.state_dict(), out, metadata={"format": "pt"})
    told: dict[str, Any] = _config(model).to_dict()
    return told


def int4_in_place(model: Molmo) -> Molmo:
    """A model in memory, quantized by the library itself, for comparison; the same model."""
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
    raise UserError("--quantize", found, f"multiples of {_GROUPS[-1]}, which share a scale")
