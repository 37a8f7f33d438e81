"""FP8 checkpoints in the hub layout and the compressed-tensors format, written row by row.

Each row of a decoder matrix has 8-bit values and its own scale; activations are scaled per token at
run time. The hub layout stacks rows, so quantizing a fused matrix equals quantizing its parts: the
file works for readers that split it and for readers that do not.

Limitations: formats that pack matrices across rows are not possible here (`int4_files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from molmo_tune.atomic_files import write_json
from molmo_tune.export.files.checkpoint import INDEX_NAME, SINGLE_NAME, Checkpoint
from molmo_tune.export.files.safetensors_files import (
    Piece,
    StoredTensor,
    TensorSpec,
    write_tensor_file,
)
from molmo_tune.export.quantized.compressed_format import (
    compressed_config,
    quantize_in_place,
    row_scales,
    scheme_of,
)
from molmo_tune.model.molmo import Molmo

_DECODER_MATRIX = re.compile(
    r"model\.transformer\.blocks\.\d+\.(self_attn\.(att_proj|attn_out)|mlp\.ff_(proj|out))\.weight"
)
_SCALE = "_scale"


def write_fp8(merged: Checkpoint, out: Path) -> None:
    """Write the weights, with the decoder's matrices in FP8.

    Args:
        merged: checkpoint in the hub layout, in bfloat16.
        out: existing folder.
    """
    format_ = _scheme().weights  # also imports the library, before several threads would
    index: dict[str, str] = {}
    total = 0
    for file in merged.files:
        tensors = [new for tensor in file.tensors for new in _new_tensors(tensor, format_)]
        write_tensor_file(out / file.path.name, tensors, file.metadata)
        index |= {spec.name: file.path.name for spec, _ in tensors}
        total += sum(spec.num_bytes for spec, _ in tensors)
    if set(index.values()) != {SINGLE_NAME}:
        write_json(out / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": index})


def fp8_config() -> dict[str, Any]:
    """Return the `quantization_config` of `config.json`."""
    config: dict[str, Any] = _config().to_dict()
    return config


def fp8_in_place(model: Molmo) -> Molmo:
    """Quantize a model in memory by the library itself, for comparison; returns the model."""
    return quantize_in_place(model, _config())


def _new_tensors(
    tensor: StoredTensor, format_: Any
) -> Iterator[tuple[TensorSpec, Iterator[Piece]]]:
    rows = list(tensor.chunks(0, tensor.num_rows))
    if not _DECODER_MATRIX.fullmatch(tensor.name):
        spec = TensorSpec(tensor.name, tensor.dtype, tensor.shape)
        yield spec, (partial(tensor.rows, *chunk) for chunk in rows)
        return
    spec = TensorSpec(tensor.name, torch.float8_e4m3fn, tensor.shape)
    yield spec, (partial(_quantized_rows, tensor, chunk, format_) for chunk in rows)
    scale = TensorSpec(tensor.name + _SCALE, torch.bfloat16, (tensor.num_rows, 1))
    yield scale, (partial(_row_scales, tensor, chunk, format_) for chunk in rows)


def _quantized_rows(tensor: StoredTensor, rows: tuple[int, int], format_: Any) -> torch.Tensor:
    from compressed_tensors.quantization.lifecycle.forward import quantize

    weight = tensor.rows(*rows)
    scale, zero = row_scales(weight, format_)
    quantized: torch.Tensor = quantize(
        x=weight, scale=scale, zero_point=zero, args=format_, dtype=torch.float8_e4m3fn
    )
    return quantized


def _row_scales(tensor: StoredTensor, rows: tuple[int, int], format_: Any) -> torch.Tensor:
    return row_scales(tensor.rows(*rows), format_)[0]


def _scheme() -> Any:
    return scheme_of("FP8_DYNAMIC")


def _config() -> Any:
    return compressed_config(_scheme(), "float-quantized")
