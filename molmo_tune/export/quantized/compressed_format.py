"""The compressed-tensors format: which weights are quantized, and how.

Only the decoder's linear layers are quantized. There is one scale per row (`fp8_files`) or per
group of columns in a row (`int4_files`): the largest absolute value divided by half the range.
Values are rounded to nearest, without calibration data. All arithmetic is the library's.

Limitations: no GPTQ or AWQ.
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
    """Return one of the library's preset schemes, optionally with a different group size."""
    from compressed_tensors.quantization import preset_name_to_scheme

    scheme = preset_name_to_scheme(preset, ["Linear"])
    if group_size is not None:
        scheme.weights.group_size = group_size
    return scheme


def compressed_config(scheme: Any, format_: str) -> Any:
    """Return the `quantization_config` of `config.json`, as the library's object."""
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    return QuantizationConfig(
        config_groups={"group_0": scheme},
        quant_method="compressed-tensors",
        format=format_,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=list(_KEPT),
    )


def row_scales(weight: torch.Tensor, arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scales and zero points of a matrix: ``(rows, 1)`` or ``(rows, groups)``, its dtype."""
    from compressed_tensors.quantization.utils import calculate_qparams

    group = arguments.group_size
    is_grouped = group is not None and group > 0
    parts = weight.unflatten(1, (-1, group)) if is_grouped else weight[:, None, :]
    scale, zero = calculate_qparams(*parts.aminmax(dim=2), arguments)
    return scale, zero


def quantize_in_place(model: Molmo, config: Any) -> Molmo:
    """Quantize the weights of a model in memory, in place; returns the model."""
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
