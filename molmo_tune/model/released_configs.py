"""The shapes of the released models, for benchmarks and estimates without their weights.

A model of the real size with random weights costs as much time and memory as the real one. The
values are from the released configurations (see `Molmo2Config` for the fields); loading a
checkpoint does not use them. Token ids above the base vocabulary are as in the released
checkpoints.

Limitations: no processor and no tokenizer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from transformers import Molmo2Config, Molmo2ForConditionalGeneration

from molmo_tune.model.molmo import Molmo

Size = Literal["4B", "8B", "O-7B"]
RELEASED: dict[str, Size] = {
    "allenai/Molmo2-4B": "4B",
    "allenai/Molmo2-8B": "8B",
    "allenai/Molmo2-O-7B": "O-7B",
}
"""Sizes by hub id."""

_QWEN_VOCABULARY, _OLMO_VOCABULARY, _EXTRA = 151936, 100278, 128
_TEXT: dict[Size, dict[str, Any]] = {
    "4B": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": _QWEN_VOCABULARY,
        "rope_theta": 5e6,
    },
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": _QWEN_VOCABULARY,
        "rope_theta": 1e6,
    },
    "O-7B": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": _OLMO_VOCABULARY,
        "rope_theta": 5e5,
        "qk_norm_type": "olmo",
        "norm_after": True,
        "max_position_embeddings": 65536,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32,
            "beta_slow": 1,
            "original_max_position_embeddings": 8192,
        },
        "rope_scaling_layers": list(range(3, 32, 4)),
    },
}
_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 72,
    "image_patch_size": 14,
    "image_num_pos": 729,
    "image_default_input_size": [378, 378],
}


def released_config(size: Size) -> Molmo2Config:
    """Return the configuration of a released size."""
    text = {
        "head_dim": 128,
        "additional_vocab_size": _EXTRA,
        "max_position_embeddings": 36864,
        "use_qk_norm": True,
        "qk_norm_type": "qwen3",
        "layer_norm_eps": 1e-6,
        **_TEXT[size],
    }
    adapter = {
        "hidden_size": 1152,
        "intermediate_size": text["intermediate_size"],
        "text_hidden_size": text["hidden_size"],
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 72,
        "vit_layers": [-3, -9],
        "pooling_attention_mask": True,
    }
    first = text["vocab_size"]
    return Molmo2Config(
        text_config=text,
        vit_config=_VISION,
        adapter_config=adapter,
        image_start_token_id=first,
        image_end_token_id=first + 1,
        image_patch_id=first + 2,
        image_high_res_id=first + 2,
        image_col_id=first + 3,
        low_res_image_start_token_id=first + 4,
        image_low_res_id=first + 6,
        frame_start_token_id=first + 7,
        frame_end_token_id=first + 8,
        tie_word_embeddings=False,
    )


def random_model(size: Size, *, dtype: torch.dtype, device: str) -> Molmo:
    """Return a frozen model of a released size with small random weights, made on its device."""
    config = released_config(size)
    with torch.device("meta"):
        model = Molmo2ForConditionalGeneration(config)
    model = model.to(dtype).to_empty(device=device)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.02) if parameter.dim() > 1 else parameter.fill_(1.0)
            if name.endswith("bias"):
                parameter.zero_()
    _fill_buffers(model, config, device)
    frozen: Molmo = model.requires_grad_(False).eval()
    return frozen


def _fill_buffers(model: Molmo, config: Molmo2Config, device: str) -> None:
    """Fill the rotary frequencies, which are not parameters, from a new module."""
    decoder = model.model.language_model
    for name in ("rotary_emb", "rotary_emb_unscaled"):
        old = getattr(decoder, name)
        scaled = {} if name == "rotary_emb" else {"scaled": False}
        setattr(decoder, name, type(old)(config.text_config, **scaled).to(device))
