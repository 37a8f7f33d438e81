"""The native Molmo 2 model as a type checker should see it.

transformers' classes are untyped, so these stand-ins name the parts this package uses. They are
never instantiated: every model is transformers' `Molmo2ForConditionalGeneration`, and a test
compares the attributes with a loaded model. `Molmo` derives from `torch.nn.Module` rather
than `Protocol`, so that it can be passed to everything that takes a module.

Shapes: ``d`` hidden size, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch


class TextConfig(Protocol):
    """Sizes of the decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    attention_bias: bool
    max_position_embeddings: int


class VisionConfig(Protocol):
    """Sizes of the vision tower."""

    num_channels: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_position_embeddings: int
    patch_size: int


class AdapterConfig(Protocol):
    """Sizes of the connector, and the vision layers it reads."""

    vision_feature_layer: list[int]
    hidden_size: int


class MolmoConfig(Protocol):
    """A checkpoint's native configuration."""

    model_type: str
    dtype: torch.dtype | None
    image_patch_id: int
    text_config: TextConfig
    vision_config: VisionConfig
    adapter_config: AdapterConfig

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""


class Decoder(torch.nn.Module):
    """The language model."""

    embed_tokens: torch.nn.Embedding
    layers: torch.nn.ModuleList
    norm: torch.nn.RMSNorm
    config: Any
    set_attn_implementation: Callable[[str], None]


class VisionTower(torch.nn.Module):
    """The vision tower."""

    layers: torch.nn.ModuleList
    dtype: torch.dtype
    patch_embedding: torch.nn.Linear
    positional_embedding: torch.Tensor


class MolmoBody(torch.nn.Module):
    """Vision tower, connector and decoder, without the LM head."""

    vision_tower: VisionTower
    multi_modal_projector: torch.nn.Module
    language_model: Decoder
    config: MolmoConfig


class Molmo(torch.nn.Module):
    """The model with its LM head ``(V, d)``."""

    model: MolmoBody
    lm_head: torch.nn.Linear
    config: MolmoConfig
    dtype: torch.dtype
    generate: Callable[..., torch.Tensor]
    get_input_embeddings: Callable[[], torch.nn.Embedding]
    gradient_checkpointing_enable: Callable[[dict[str, bool]], None]
