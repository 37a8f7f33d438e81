"""`config.json` in the fields of the released files, which Ai2's code and vLLM read.

Transformers reads both spellings and saves its own (`vision_config` for `vit_config`, other names
inside, and the vision tower's depth cut to what is used). A base that was saved so gets the
released fields back here; one that has them already is left as it is, unknown fields included.

What it does not do: invent fields. What the native file lacks is lacking after it too, and is found
by `vllm_contract`.
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
    """The contents of a `config.json`, native or released, in the released fields."""
    if "vit_config" in config:
        return config
    made = {name: value for name, value in config.items() if not name.endswith("_config")}
    made["vit_config"] = _renamed(config["vision_config"], _VISION) | {"model_type": "molmo2"}
    made["adapter_config"] = _renamed(config["adapter_config"], _ADAPTER) | {"model_type": "molmo2"}
    made["text_config"] = _text(config["text_config"])
    return dict(sorted(made.items()))


def _renamed(section: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    kept = {names.get(name, name): value for name, value in section.items()}
    return {name: value for name, value in kept.items() if name not in _NATIVE_ONLY}


def _text(section: dict[str, Any]) -> dict[str, Any]:
    made = _renamed(section, _TEXT)
    rope = dict(made.pop("rope_parameters", None) or {})
    made["rope_theta"] = rope.pop("rope_theta", made.get("rope_theta"))
    scaled = rope.get("rope_type", "default") != "default"
    made["rope_scaling"] = rope if scaled else None
    if not scaled:
        made["rope_scaling_layers"] = None
    made.setdefault("use_qk_norm", True)  # native models always have them
    return made
