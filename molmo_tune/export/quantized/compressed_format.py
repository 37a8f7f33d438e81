"""What our checkpoints in the format of compressed-tensors have in common: what is small, and how.

Only the decoder's linear layers are quantized. A scale stands for a row (`fp8_files`) or a group of
columns of a row (`int4_files`); it is the largest absolute number divided by half the range, and
numbers are rounded to the nearest. No data are needed, so nothing depends on a choice of them. All
arithmetic is the library's.

What it does not do: search for better roundings (GPTQ, AWQ).
"""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.model.molmo import Molmo

_KEPT = (
    "lm_head",
    *(f"re:.*{part}.*" for part in ("vision_tower", "multi_modal_projector", "vision_backbone")),
)


def scheme_of(preset: str, group_size: int | None = None) -> Any:
    """A scheme that the library knows by name, on other groups of columns where they are named."""
    from compressed_tensors.quantization import preset_name_to_scheme

    scheme = preset_name_to_scheme(preset, ["Linear"])
    if group_size is not None:
        scheme.weights.group_size = group_size
    return scheme


def compressed_config(scheme: Any, format_: str) -> Any:
    """What `config.json` says of the weights, as the library's own object."""
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    return QuantizationConfig(
        config_groups={"group_0": scheme},
        quant_method="compressed-tensors",
        format=format_,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=list(_KEPT),
    )


def row_scales(weight: torch.Tensor, arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of a matrix, in its type: ``(rows, 1)``, or ``(rows, groups)``."""
    from compressed_tensors.quantization.utils import calculate_qparams

    group = arguments.group_size
    is_grouped = group is not None and group > 0
    parts = weight.unflatten(1, (-1, group)) if is_grouped else weight[:, None, :]
    scale, zero = calculate_qparams(*parts.aminmax(dim=2), arguments)
    return scale, zero


def quantize_in_place(model: Molmo, config: Any) -> Molmo:
    """A model in memory that computes with quantized weights; the same model."""
    from compressed_tensors.quantization import QuantizationStatus, apply_quantization_config

    config.quantization_status = QuantizationStatus.FROZEN
    apply_quantization_config(model, config)
    module: Any
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            scale, zero = row_scales(module.weight, module.quantization_scheme.weights)
            module.weight_scale.data = scale
            module.weight_zero_point = torch.nn.Parameter(zero, requires_grad=False)
    return model
