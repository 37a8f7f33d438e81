"""Configuration, fresh weights and files of the tiny Molmo 2, in the released Hub layout.

It has every component of the real model, only smaller: a vision tower with two layers read out,
attention pooling, projector, a decoder with grouped-query attention and per-head QK norms, and the
128 extra embedding rows. Crops are 84 pixels or 6×6 patches, with 2×2 patches per token.
`config.json` has the fields of the released file, and as there, it declares two more vision layers
than the weights have.

Fresh weights have a standard deviation of 1/√fan-in: with the stock 0.02, a model of this width
learns nothing (measured). Queries start equal to keys, so that a token first attends to tokens like
itself; this suits a model that must find what a word names.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from molmo_tune.tiny.tokenizer import BASE_VOCAB_SIZE, save_tokenizer

SIDE = 84
PATCH = 14
POOLING = 2
VIDEO_GRID = SIDE // PATCH // POOLING  # rows and columns of a frame's vision tokens
BASE_FOLDER = Path(__file__).parent / "base"

_TEXT = {
    "additional_vocab_size": 128,
    "attention_dropout": 0.0,
    "attn_implementation": "sdpa",
    "embedding_dropout": 0.0,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 320,
    "layer_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
    "model_type": "molmo2_text",
    "norm_after": False,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "qk_norm_type": "qwen3",
    "qkv_bias": False,
    "residual_dropout": 0.0,
    "rope_scaling": None,
    "rope_scaling_layers": None,
    "rope_theta": 10000.0,
    "use_cache": True,
    "use_qk_norm": True,
    "vocab_size": BASE_VOCAB_SIZE,
}
_VISION = {
    "attention_dropout": 0.0,
    "attn_implementation": "sdpa",
    "float32_attention": True,
    "head_dim": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 96,
    "image_default_input_size": [SIDE, SIDE],
    "image_num_pos": (SIDE // PATCH) ** 2,
    "image_patch_size": PATCH,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-6,
    "model_type": "molmo2",
    "num_attention_heads": 3,
    "num_hidden_layers": 6,
    "num_key_value_heads": 3,
    "residual_dropout": 0.0,
}
_ADAPTER = {
    "attention_dropout": 0.0,
    "attn_implementation": "sdpa",
    "float32_attention": True,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 96,
    "image_feature_dropout": 0.0,
    "initializer_range": 0.02,
    "intermediate_size": 192,
    "model_type": "molmo2",
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "pooling_attention_mask": True,
    "residual_dropout": 0.0,
    "text_hidden_size": 128,
    "vit_layers": [-3, -5],
}


def hub_config() -> dict[str, Any]:
    """Return the contents of `config.json`."""
    first = BASE_VOCAB_SIZE
    return {
        "adapter_config": _ADAPTER,
        "architectures": ["Molmo2ForConditionalGeneration"],
        "dtype": "bfloat16",
        "frame_end_token_id": first + 8,
        "frame_start_token_id": first + 7,
        "image_col_id": first + 3,
        "image_end_token_id": first + 1,
        "image_high_res_id": first + 2,
        "image_low_res_id": first + 6,
        "image_patch_id": first + 2,
        "image_start_token_id": first,
        "initializer_range": 0.02,
        "low_res_image_start_token_id": first + 4,
        "model_type": "molmo2",
        "text_config": _TEXT,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_frame_special_tokens": False,
        "vit_config": _VISION,
    }


def write_files(folder: Path) -> None:
    """Write all files of a checkpoint except weights: configuration, tokenizer, processor."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(folder)
    end, pad = _token_id(folder, "<|im_end|>"), _token_id(folder, "<|endoftext|>")
    size = {"height": SIDE, "width": SIDE}
    mean_std = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    files: dict[str, dict[str, Any]] = {
        "config.json": hub_config(),
        "generation_config.json": {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad},
        "processor_config.json": {
            "image_use_col_tokens": True,
            "processor_class": "Molmo2Processor",
            "use_frame_special_tokens": False,
            "use_low_res_token_for_global_crops": False,
            "use_single_crop_col_tokens": False,
            "use_single_crop_start_token": True,
            "video_use_col_tokens": False,
        },
        "preprocessor_config.json": {
            "do_convert_rgb": True,
            "image_processor_type": "Molmo2ImageProcessor",
            "max_crops": 4,
            "overlap_margins": [1, 1],
            "patch_size": PATCH,
            "pooling_size": [POOLING, POOLING],
            "processor_class": "Molmo2Processor",
            "size": size,
            **mean_std,
        },
        "video_preprocessor_config.json": {
            "data_format": "channels_first",
            "default_to_square": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "do_sample_frames": True,
            "frame_sample_mode": "uniform_last_frame",
            "max_fps": 2.0,
            "num_frames": 16,
            "patch_size": PATCH,
            "pooling_size": [POOLING, POOLING],
            "processor_class": "Molmo2Processor",
            "rescale_factor": 1 / 255,
            "sampling_fps": 2,
            "size": size,
            "video_processor_type": "Molmo2VideoProcessor",
            **mean_std,
        },
    }
    for name, contents in files.items():
        (folder / name).write_text(json.dumps(contents, indent=2, sort_keys=True) + "\n")
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE)


def fresh_model(seed: int) -> Any:
    """Return the tiny model with random float32 weights, on the CPU."""
    from transformers import Molmo2Config, Molmo2ForConditionalGeneration

    torch.manual_seed(seed)
    model = Molmo2ForConditionalGeneration(Molmo2Config(**hub_config()))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            is_table = "embed_tokens" in name or "positional" in name
            fan_in = parameter.shape[1] if not is_table else 1
            deviation = 0.5 if is_table else 1 / math.sqrt(fan_in)
            nn.init.normal_(parameter, std=deviation)
    _start_queries_as_keys(model)
    return model


@torch.no_grad()
def _start_queries_as_keys(model: Any) -> None:
    """Set queries equal to the keys of their group: a token first attends to similar tokens."""
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        keys = attention.k_proj.weight.unflatten(0, (-1, attention.head_dim))
        queries = keys.repeat_interleave(attention.num_key_value_groups, dim=0)
        attention.q_proj.weight.copy_(queries.flatten(0, 1))


def _token_id(folder: Path, token: str) -> int:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    return next(int(t["id"]) for t in tokenizer["added_tokens"] if t["content"] == token)


# Media first, numbered if there are several images; then the turns, which end with <|im_end|>.
_CHAT_TEMPLATE = """\
{%- set ns = namespace(images=0, videos=0) -%}
{%- for message in messages if message['content'] is not string -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{%- set ns.images = ns.images + 1 -%}
{%- elif part['type'] == 'video' -%}{%- set ns.videos = ns.videos + 1 -%}{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if ns.images == 1 -%}{{ '<|image|>' }}
{%- else -%}
{%- for k in range(ns.images) -%}{{ 'Image ' ~ (k + 1) ~ '<|image|>' }}{%- endfor -%}
{%- endif -%}
{%- for _ in range(ns.videos) -%}{{ '<|video|>' }}{%- endfor -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{%- if not loop.first -%}{{ '<|im_end|>\\n' }}{%- endif -%}
{{ '<|im_start|>user\\n' }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{{ message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') }}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- else -%}
{{ '<|im_start|>assistant\\n' }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}{{ message['content'] | map(attribute='text') | join(' ') }}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
