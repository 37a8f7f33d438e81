"""What vLLM's Molmo 2 reads of a folder, field by field: read in the wheel of vLLM 0.33.0.

vLLM takes its sizes from `config.vit_config`, `.adapter_config` and `.text_config` by name, one
`getattr` each without a default; asks the processor for the fields below; and renames tensors of
the released layout. It gets `vit_config` only from the checkpoint's own remote code (transformers'
native configuration calls it `vision_config`), so `auto_map` and the files it names are part of it.

In two places vLLM computes something else than training did (`tests.serving.compare_vllm` saw it).
It embeds what surrounds a video's frame by `frame_start_token_id` and `frame_end_token_id` also
where the processor writes `<im_start>` and `<im_end>`: `hf_overrides` puts that right. And it puts
image features in the place of the embedding of `<im_patch>` where all other code adds them: nothing
puts that right, so it is measured how much there is to add.

What it does not do: run vLLM. A field of the right name can still hold a wrong number; that it is
the base's number is seen by comparing the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING, hub_names

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
_USUAL_ROWS = 64
REMOTE_CODE = ("AutoConfig", "AutoModelForImageTextToText")


def unmet(folder: Path) -> list[str]:
    """What vLLM would look for in vain: fields, tensors, remote code; empty when all is there.

    Raises:
        UserError: the folder is no checkpoint.
    """
    config = _json(folder / "config.json")
    found = []
    for section, names in CONFIG_FIELDS.items():
        there = config.get(section, {}) if section else config
        found += [f"config.json: {section}.{n}".replace(": .", ": ") for n in _absent(there, names)]
    for file, names in PROCESSOR_FIELDS.items():
        found += [f"{file}: {name}" for name in _absent(_json(folder / file), names)]
    checkpoint = read_checkpoint(folder)
    stored = {tensor.name for file in checkpoint.files for tensor in file.tensors}
    found += [f"tensor {name}" for name in hub_names(checkpoint.config) if name not in stored]
    return found + _remote_code(folder, config)


def require_no_worse(folder: Path, base: Path) -> list[str]:
    """What is unmet, in an export; all of it was so in the base already.

    Raises:
        UserError: vLLM would find something in the base that it does not in the export.
    """
    missing = unmet(folder)
    if "vit_config" not in _json(base / "config.json"):
        return missing  # a base in transformers' own layout has more to miss
    there_too = unmet(base)
    lost = [one for one in missing if one not in there_too]
    if lost:
        raise UserError(folder, f"lacks {lost[0]}, which vLLM reads", "all that the base has")
    return missing


def vllm_report(folder: Path, missing: list[str]) -> dict[str, Any]:
    """What an export's report says of serving with vLLM; ``missing``: what is unmet."""
    return {
        "version": VLLM_VERSION,
        "unmet": missing,
        "hf_overrides": hf_overrides(folder),
        "image_patch_row": image_patch_row(folder),
    }


def hf_overrides(folder: Path) -> dict[str, int]:
    """Fields for vLLM's `--hf-overrides` that make it embed a video's frames as training does."""
    config, processor = _json(folder / "config.json"), _json(folder / "processor_config.json")
    names = {
        "frame_start_token_id": "image_start_token_id",
        "frame_end_token_id": "image_end_token_id",
    }
    if processor.get("use_frame_special_tokens", True):
        return {}
    return {field: config[there] for field, there in names.items() if there in config}


def image_patch_row(folder: Path) -> float:
    """Length of the embedding of `<im_patch>`, which vLLM leaves out; that of a usual row is 1."""
    checkpoint, place = read_checkpoint(folder), _json(folder / "config.json")["image_patch_id"]
    usual = checkpoint.native_rows(NATIVE_EMBEDDING, 0, _USUAL_ROWS).float().norm(dim=1).median()
    row = checkpoint.native_rows(NATIVE_EMBEDDING, place, place + 1).float().norm()
    return round(float(row / usual), 4)


def _absent(contents: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name not in contents]


def _remote_code(folder: Path, config: dict[str, Any]) -> list[str]:
    pointers = config.get("auto_map", {})
    found = [f"config.json: auto_map.{name}" for name in REMOTE_CODE if name not in pointers]
    files = {f"{pointers[name].split('.')[0]}.py" for name in REMOTE_CODE if name in pointers}
    return found + [
        f"remote code {name}" for name in sorted(files) if not (folder / name).is_file()
    ]


def _json(file: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return contents
