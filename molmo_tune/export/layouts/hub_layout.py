"""Tensor names and shapes of the released checkpoints: the only place that spells them.

Hub tensors are renamed native Transformers tensors, or several of them stacked:

    hub                                    native
    blocks.i.self_attn.att_proj            q_proj ‖ k_proj ‖ v_proj   (rows, in this order)
    blocks.i.mlp.ff_proj                   up_proj ‖ gate_proj        (up first)
    wte.embedding ‖ wte.new_embedding      embed_tokens               (vocabulary, 128 extra rows)

`hub_sources` gives the native tensors whose rows make up a hub tensor. The merge applies it to the
base's own files, so an export has exactly the tensors of its base.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from molmo_tune.model.molmo import Molmo, MolmoConfig

_LANGUAGE = "model.language_model.layers"
_VISION = "model.vision_tower"
_CONNECTOR = "model.multi_modal_projector"

# Hub name (a pattern with the layer number) → native tensors, stacked along rows.
_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"model\.transformer\.blocks\.(\d+)\.self_attn\.att_proj\.(weight|bias)",
        tuple(rf"{_LANGUAGE}.\1.self_attn.{leaf}_proj.\2" for leaf in "qkv"),
    ),
    (
        r"model\.transformer\.blocks\.(\d+)\.self_attn\.attn_out\.weight",
        (rf"{_LANGUAGE}.\1.self_attn.o_proj.weight",),
    ),
    (
        r"model\.transformer\.blocks\.(\d+)\.self_attn\.([qk]_norm)\.weight",
        (rf"{_LANGUAGE}.\1.self_attn.\2.weight",),
    ),
    (
        r"model\.transformer\.blocks\.(\d+)\.mlp\.ff_proj\.weight",
        (rf"{_LANGUAGE}.\1.mlp.up_proj.weight", rf"{_LANGUAGE}.\1.mlp.gate_proj.weight"),
    ),
    (
        r"model\.transformer\.blocks\.(\d+)\.mlp\.ff_out\.weight",
        (rf"{_LANGUAGE}.\1.mlp.down_proj.weight",),
    ),
    (
        r"model\.transformer\.blocks\.(\d+)\.attn_norm\.weight",
        (rf"{_LANGUAGE}.\1.input_layernorm.weight",),
    ),
    (
        r"model\.transformer\.blocks\.(\d+)\.ff_norm\.weight",
        (rf"{_LANGUAGE}.\1.post_attention_layernorm.weight",),
    ),
    (r"model\.transformer\.ln_f\.weight", ("model.language_model.norm.weight",)),
    (r"lm_head\.weight", ("lm_head.weight",)),
    (
        r"model\.vision_backbone\.image_vit\.(positional_embedding|patch_embedding\.(?:weight|bias))",
        (rf"{_VISION}.\1",),
    ),
    *(
        (
            r"model\.vision_backbone\.image_vit\.transformer\.resblocks\.(\d+)"
            rf"\.{hub}\.(weight|bias)",
            (rf"{_VISION}.layers.\1.{native}.\2",),
        )
        for hub, native in (
            (r"attention\.wq", "self_attn.q_proj"),
            (r"attention\.wk", "self_attn.k_proj"),
            (r"attention\.wv", "self_attn.v_proj"),
            (r"attention\.wo", "self_attn.o_proj"),
            (r"feed_forward\.w1", "mlp.fc1"),
            (r"feed_forward\.w2", "mlp.fc2"),
            (r"attention_norm", "layer_norm1"),
            (r"ffn_norm", "layer_norm2"),
        )
    ),
    *(
        (
            rf"model\.vision_backbone\.image_pooling_2d\.w{leaf}\.(weight|bias)",
            (rf"{_CONNECTOR}.image_pooling_2d.{leaf}_proj.\1",),
        )
        for leaf in "qkvo"
    ),
    *(
        (
            rf"model\.vision_backbone\.image_projector\.{hub}\.(weight|bias)",
            (rf"{_CONNECTOR}.image_projector.{native}.\1",),
        )
        for hub, native in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"))
    ),
)
_COMPILED = tuple((re.compile(pattern), natives) for pattern, natives in _RULES)

EMBEDDING = "model.transformer.wte.embedding"
NEW_EMBEDDING = "model.transformer.wte.new_embedding"
NATIVE_NORM = "model.language_model.norm.weight"
NATIVE_EMBEDDING = "model.language_model.embed_tokens.weight"


def hub_sources(hub_name: str) -> tuple[str, ...] | None:
    """Return the native tensors whose stacked rows are this hub tensor; None for other names.

    Both embedding tables are parts of the same native tensor.
    """
    if hub_name in (EMBEDDING, NEW_EMBEDDING):
        return (NATIVE_EMBEDDING,)
    for pattern, natives in _COMPILED:
        match = pattern.fullmatch(hub_name)
        if match:
            return tuple(match.expand(native) for native in natives)
    return None


def hub_names(config: MolmoConfig) -> list[str]:
    """Return all tensor names of a checkpoint with this native configuration, sorted."""
    text, vision = config.text_config, config.vision_config
    names = [EMBEDDING, NEW_EMBEDDING, "model.transformer.ln_f.weight", "lm_head.weight"]
    for i in range(text.num_hidden_layers):
        block = f"model.transformer.blocks.{i}"
        leaves = ["att_proj", "attn_out", "q_norm", "k_norm"]
        names += [f"{block}.self_attn.{leaf}.weight" for leaf in leaves]
        names += [f"{block}.{leaf}.weight" for leaf in ("mlp.ff_proj", "mlp.ff_out")]
        names += [f"{block}.{leaf}.weight" for leaf in ("attn_norm", "ff_norm")]
        if text.attention_bias:
            names.append(f"{block}.self_attn.att_proj.bias")
    vit = "model.vision_backbone.image_vit"
    names.append(f"{vit}.positional_embedding")
    modules = [f"{vit}.patch_embedding"]
    for i in range(vision.num_hidden_layers):
        block = f"{vit}.transformer.resblocks.{i}"
        modules += [f"{block}.attention.w{leaf}" for leaf in "qkvo"]
        modules += [f"{block}.feed_forward.w{leaf}" for leaf in "12"]
        modules += [f"{block}.attention_norm", f"{block}.ffn_norm"]
    modules += [f"model.vision_backbone.image_pooling_2d.w{leaf}" for leaf in "qkvo"]
    names += [f"{module}.{part}" for module in modules for part in ("weight", "bias")]
    names += [f"model.vision_backbone.image_projector.w{k}.weight" for k in (1, 2, 3)]
    return sorted(names)


def to_hub(native: dict[str, torch.Tensor], config: MolmoConfig) -> dict[str, torch.Tensor]:
    """Convert a native state dict to hub names and shapes (small models; `merge` streams)."""
    vocab_size = config.text_config.vocab_size
    tensors: dict[str, torch.Tensor] = {}
    for name in hub_names(config):
        sources = hub_sources(name)
        if sources is None:
            raise ValueError(f"no rule for {name}")
        stacked = torch.cat([native[source] for source in sources])
        if name == EMBEDDING:
            stacked = stacked[:vocab_size]
        elif name == NEW_EMBEDDING:
            stacked = stacked[vocab_size:]
        tensors[name] = stacked
    return tensors


def save_hub_weights(model: Molmo, folder: Path, *, dtype: torch.dtype) -> None:
    """Write `model.safetensors` of a small model in the hub layout."""
    tensors = to_hub(model.state_dict(), model.config)
    save_file(
        {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()},
        str(folder / "model.safetensors"),
        metadata={"format": "pt"},
    )
