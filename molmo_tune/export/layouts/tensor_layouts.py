"""The three checkpoint layouts, each described in rows of native tensors.

    hub      names and fused tensors of the released checkpoints; Ai2's code and vLLM load these
    native   module names of Transformers, nothing fused
    ai2      state of Ai2's trainer: the hub tensors without `model.`, `self_attn.`, `mlp.`

A layout is one function: tensor name → the native rows it stacks. Given it for input and output,
every conversion is the same walk (`merge`), and its inverse needs no extra code.

Limitations: adapters are `fused_adapter`'s, configuration and processor files `config_files`'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, Molmo2ForConditionalGeneration

from molmo_tune import choices
from molmo_tune.errors import UserError
from molmo_tune.export.layouts.hub_layout import (
    EMBEDDING,
    NEW_EMBEDDING,
    hub_names,
    hub_sources,
)
from molmo_tune.model.molmo import MolmoConfig

Layout = choices.CheckpointLayout
LAYOUTS: tuple[Layout, ...] = ("hub", "native", "ai2")
Shapes = dict[str, tuple[int, ...]]

HUB_PREFIX = "model."
_BLOCK = r"transformer\.blocks\.\d+\."
_HUB_GROUPS = re.compile(rf"({_BLOCK})(?:self_attn|mlp)\.")
_AI2_ATTENTION = re.compile(rf"({_BLOCK})(?=(?:att_proj|attn_out|q_norm|k_norm)\.)")
_AI2_MLP = re.compile(rf"({_BLOCK})(?=(?:ff_proj|ff_out)\.)")
HUB_HEAD, AI2_HEAD = "lm_head.weight", "transformer.ff_out.weight"
AI2_EMBEDDING = EMBEDDING.removeprefix(HUB_PREFIX)
AI2_NEW_EMBEDDING = NEW_EMBEDDING.removeprefix(HUB_PREFIX)


@dataclass(frozen=True, slots=True)
class NativeRows:
    """Rows ``first`` to ``last`` (exclusive) of a native tensor."""

    name: str
    first: int
    last: int


def read_config(folder: Path) -> MolmoConfig:
    """Return the native configuration of a checkpoint folder, from either spelling of its fields.

    Raises:
        UserError: there is none, or it is of a different architecture.
    """
    try:
        config: MolmoConfig = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(
            folder, "no readable config.json", "a Molmo 2 checkpoint folder", "name one with --like"
        ) from error
    if config.model_type != "molmo2":
        raise UserError(folder, f"a {config.model_type!r} checkpoint", "a Molmo 2 checkpoint")
    return config


def native_shapes(config: MolmoConfig) -> Shapes:
    """Return names and shapes of all native tensors, without allocating them."""
    with torch.device("meta"):
        model = Molmo2ForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def layout_names(layout: Layout, config: MolmoConfig, shapes: Shapes) -> list[str]:
    """Return all tensor names of a checkpoint in this layout, sorted."""
    if layout == "native":
        return sorted(shapes)
    names = hub_names(config)
    return names if layout == "hub" else sorted(ai2_name(name) for name in names)


def tensor_parts(
    layout: Layout, name: str, shapes: Shapes, vocab_size: int
) -> tuple[NativeRows, ...] | None:
    """Return the native rows that a tensor stacks; None if the layout has no such tensor."""
    if layout == "native":
        return (NativeRows(name, 0, _rows(shapes[name])),) if name in shapes else None
    hub = hub_name(name) if layout == "ai2" else name
    sources = hub_sources(hub)
    if sources is None or any(source not in shapes for source in sources):
        return None
    rows = {EMBEDDING: (0, vocab_size), NEW_EMBEDDING: (vocab_size, _rows(shapes[sources[0]]))}
    if hub in rows:
        return (NativeRows(sources[0], *rows[hub]),)
    return tuple(NativeRows(source, 0, _rows(shapes[source])) for source in sources)


def tensor_shape(parts: tuple[NativeRows, ...], shapes: Shapes) -> tuple[int, ...]:
    """Return the shape of the tensor that stacks these rows."""
    rest = shapes[parts[0].name][1:]
    return (sum(part.last - part.first for part in parts), *rest)


def ai2_name(hub: str) -> str:
    """Return the name of a hub tensor in the trainer's state."""
    if hub == HUB_HEAD:
        return AI2_HEAD
    return _HUB_GROUPS.sub(r"\1", hub.removeprefix(HUB_PREFIX))


def hub_name(ai2: str) -> str:
    """Return the hub name of a tensor in the trainer's state."""
    if ai2 == AI2_HEAD:
        return HUB_HEAD
    return HUB_PREFIX + _AI2_MLP.sub(r"\1mlp.", _AI2_ATTENTION.sub(r"\1self_attn.", ai2))


def layout_of(names: Iterable[str], where: Path) -> Layout:
    """Return the layout that tensor names belong to.

    Raises:
        UserError: they belong to none.
    """
    for name in names:
        if name.startswith("model.transformer."):
            return "hub"
        if name.startswith("model.language_model."):
            return "native"
        if name.startswith("transformer."):
            return "ai2"
    raise UserError(where, "no tensor names of a known layout", f"one of {', '.join(LAYOUTS)}")


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1
