"""The files, fields and tensors that vLLM's Molmo 2 reads, taken from the vLLM 0.33.0 wheel.

vLLM reads its sizes by name from `config.vit_config`, `.adapter_config` and `.text_config`, one
`getattr` each without a default; reads the processor fields below; and renames tensors of the
released layout. Only the checkpoint's remote code defines `vit_config` (the native configuration of
Transformers calls it `vision_config`), so `auto_map` and the files it names are required, too.

vLLM differs from training in two places (measured by `tests.serving.compare_vllm`). It embeds the
tokens around a video frame by `frame_start_token_id` and `frame_end_token_id`, even if the
processor writes `<im_start>` and `<im_end>`: `hf_overrides` corrects this. And it overwrites the
embedding of `<im_patch>` with image features, where all other code adds them: this cannot be
corrected, so `image_patch_row` measures the norm of that embedding.

Limitations: vLLM is not run. A required field can still have a wrong value; a comparison of the
files shows whether it is the base's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING, hub_names
from molmo_tune.export.report import VllmReport

VLLM_VERSION = "0.33.0"

CONFIG_FIELDS: dict[str, tuple[str, ...]] = {
    "": (
        "image_patch_id",
        "image_start_token_id",
        "image_end_token_id",
        "image_col_id",
        "image_low_res_id",
        "low_res_image_start_token_id",
        "frame_start_token_id",
        "frame_end_token_id",
    ),
    "vit_config": (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "layer_norm_eps",
        "image_default_input_size",
        "image_patch_size",
        "image_num_pos",
    ),
    "adapter_config": (
        "vit_layers",
        "pooling_attention_mask",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "intermediate_size",
        "text_hidden_size",
    ),
    "text_config": (
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "additional_vocab_size",
        "qkv_bias",
        "num_hidden_layers",
        "intermediate_size",
        "hidden_act",
        "max_position_embeddings",
        "rope_theta",
        "use_qk_norm",
        "qk_norm_type",
        "layer_norm_eps",
        "norm_after",
        "rope_scaling_layers",
    ),
}
PROCESSOR_FIELDS: dict[str, tuple[str, ...]] = {
    "preprocessor_config.json": (
        "max_crops",
        "overlap_margins",
        "patch_size",
        "pooling_size",
        "size",
    ),
    "video_preprocessor_config.json": (
        "num_frames",
        "max_fps",
        "sampling_fps",
        "frame_sample_mode",
        "patch_size",
        "pooling_size",
        "size",
    ),
    "processor_config.json": (
        "image_use_col_tokens",
        "use_single_crop_col_tokens",
        "use_single_crop_start_token",
        "video_use_col_tokens",
        "use_frame_special_tokens",
    ),
}
_REFERENCE_ROWS = 64
REMOTE_CODE = ("AutoConfig", "AutoModelForImageTextToText")


def unmet(folder: Path) -> list[str]:
    """List the fields, tensors and remote code files that vLLM needs and the folder lacks.

    Raises:
        UserError: the folder is not a checkpoint.
    """
    config = _json(folder / "config.json")
    missing = []
    for section, names in CONFIG_FIELDS.items():
        fields = config.get(section, {}) if section else config
        prefix = f"config.json: {section}." if section else "config.json: "
        missing += [f"{prefix}{name}" for name in names if name not in fields]
    for file, names in PROCESSOR_FIELDS.items():
        fields = _json(folder / file)
        missing += [f"{file}: {name}" for name in names if name not in fields]
    checkpoint = read_checkpoint(folder)
    stored = {tensor.name for file in checkpoint.files for tensor in file.tensors}
    missing += [f"tensor {name}" for name in hub_names(checkpoint.config) if name not in stored]
    return missing + _missing_code(folder, config)


def require_no_worse(folder: Path, base: Path) -> list[str]:
    """List what an export lacks for vLLM; the base lacks all of it, too.

    Raises:
        UserError: the export lacks something that the base has.
    """
    missing = unmet(folder)
    if "vit_config" not in _json(base / "config.json"):
        return missing  # a base in the native layout lacks more than its export
    missing_in_base = unmet(base)
    new = [one for one in missing if one not in missing_in_base]
    if new:
        raise UserError(folder, f"lacks {new[0]}, which vLLM reads", "everything the base has")
    return missing


def vllm_report(folder: Path, missing: list[str]) -> VllmReport:
    """Return the vLLM section of an export report; ``missing`` is the result of `unmet`."""
    return {
        "version": VLLM_VERSION,
        "unmet": missing,
        "hf_overrides": hf_overrides(folder),
        "image_patch_row": image_patch_row(folder),
    }


def hf_overrides(folder: Path) -> dict[str, int]:
    """Return the `--hf-overrides` that make vLLM embed the frames of a video as training does."""
    config, processor = _json(folder / "config.json"), _json(folder / "processor_config.json")
    names = {
        "frame_start_token_id": "image_start_token_id",
        "frame_end_token_id": "image_end_token_id",
    }
    if processor.get("use_frame_special_tokens", True):
        return {}
    return {field: config[source] for field, source in names.items() if source in config}


def image_patch_row(folder: Path) -> float:
    """Return the norm of the `<im_patch>` embedding, which vLLM ignores, relative to the median."""
    checkpoint, token = read_checkpoint(folder), _json(folder / "config.json")["image_patch_id"]
    rows = checkpoint.native_rows(NATIVE_EMBEDDING, 0, _REFERENCE_ROWS).float()
    row = checkpoint.native_rows(NATIVE_EMBEDDING, token, token + 1).float()
    return round(float(row.norm() / rows.norm(dim=1).median()), 4)


def _missing_code(folder: Path, config: dict[str, Any]) -> list[str]:
    classes = config.get("auto_map", {})
    missing = [f"config.json: auto_map.{name}" for name in REMOTE_CODE if name not in classes]
    files = {f"{classes[name].split('.')[0]}.py" for name in REMOTE_CODE if name in classes}
    return missing + [
        f"remote code {name}" for name in sorted(files) if not (folder / name).is_file()
    ]


def _json(file: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return contents
