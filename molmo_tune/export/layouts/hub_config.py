"""`config.json` with the field names of the released files, which Ai2's code and vLLM read.

Transformers reads both spellings and saves its own (`vision_config` for `vit_config`, other names
inside, and only the vision layers in use). Here such a configuration gets the released names back.
A configuration in the released names is not changed, unknown fields included.

Limitations: fields that the native file lacks stay missing; `vllm_requirements` reports them.
"""

from __future__ import annotations

from typing import Any

_VISION = {
    "image_size": "image_default_input_size",
    "patch_size": "image_patch_size",
    "num_position_embeddings": "image_num_pos",
}
_ADAPTER = {"vision_feature_layer": "vit_layers"}
_TEXT = {"attention_bias": "qkv_bias", "rms_norm_eps": "layer_norm_eps"}
_NATIVE_ONLY = ("attention_bias", "mlp_bias", "num_channels", "dtype", "tie_word_embeddings")


def hub_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of a `config.json`, native or released, under the released names."""
    if "vit_config" in config:
        return config
    released = {name: value for name, value in config.items() if not name.endswith("_config")}
    released["vit_config"] = _renamed(config["vision_config"], _VISION) | {"model_type": "molmo2"}
    released["adapter_config"] = _renamed(config["adapter_config"], _ADAPTER) | {
        "model_type": "molmo2"
    }
    released["text_config"] = _text(config["text_config"])
    return dict(sorted(released.items()))


def _renamed(section: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    kept = {names.get(name, name): value for name, value in section.items()}
    return {name: value for name, value in kept.items() if name not in _NATIVE_ONLY}


def _text(section: dict[str, Any]) -> dict[str, Any]:
    released = _renamed(section, _TEXT)
    rope = dict(released.pop("rope_parameters", None) or {})
    released["rope_theta"] = rope.pop("rope_theta", released.get("rope_theta"))
    is_scaled = rope.get("rope_type", "default") != "default"
    released["rope_scaling"] = rope if is_scaled else None
    if not is_scaled:
        released["rope_scaling_layers"] = None
    released.setdefault("use_qk_norm", True)  # always used by native models
    return released
