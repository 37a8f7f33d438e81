"""The three layouts of a whole checkpoint, each told in rows of native tensors.

    hub      names and fused tensors of the released checkpoints: what Ai2's code and vLLM load
    native   transformers' own module names, nothing fused: what its classes look like inside
    ai2      the state of Ai2's trainer: the hub's tensors without `model.`, `self_attn.`, `mlp.`

A layout is one function: which native rows, stacked, are this tensor? With it for the input and for
the output, every conversion is the same walk (`merge`), and its inverse needs no code of its own.

What it does not do: adapters (`fused_adapter`), configurations and processor files (`export`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, Molmo2ForConditionalGeneration

from molmo_tune.errors import UserError
from molmo_tune.export.layouts.hub_layout import (
    EMBEDDING,
    NEW_EMBEDDING,
    hub_names,
    hub_sources,
)
from molmo_tune.model.molmo import MolmoConfig

Layout = Literal["hub", "native", "ai2"]
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
    """The native configuration of a checkpoint folder, whichever way its fields are spelled.

    Raises:
        UserError: there is none, or it is of another architecture.
    """
    try:
        config: MolmoConfig = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(
            folder, "no readable config.json", "a Molmo 2 checkpoint folder", "name one with --like"
        ) from error
    if config.model_type != "molmo2":
        raise UserError(folder, f"a {config.model_type!r} checkpoint", "a Molmo 2 one")
    return config


def native_shapes(config: MolmoConfig) -> Shapes:
    """Names and shapes of all tensors of the native model; no memory is taken."""
    with torch.device("meta"):
        model = Molmo2ForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def layout_names(layout: Layout, config: MolmoConfig, shapes: Shapes) -> list[str]:
    """All tensor names of a checkpoint in this layout, sorted."""
    if layout == "native":
        return sorted(shapes)
    names = hub_names(config)
    return names if layout == "hub" else sorted(ai2_name(name) for name in names)


def tensor_parts(
    layout: Layout, name: str, shapes: Shapes, vocab_size: int
) -> tuple[NativeRows, ...] | None:
    """The native rows that this tensor stacks; None for a name that the layout does not have."""
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
    """Shape of the tensor that stacks these rows."""
    rest = shapes[parts[0].name][1:]
    return (sum(part.last - part.first for part in parts), *rest)


def ai2_name(hub: str) -> str:
    """The name in the trainer's state of a hub tensor."""
    if hub == HUB_HEAD:
        return AI2_HEAD
    return _HUB_GROUPS.sub(r"\1", hub.removeprefix(HUB_PREFIX))


def hub_name(ai2: str) -> str:
    """The hub name of a tensor of the trainer's state."""
    if ai2 == AI2_HEAD:
        return HUB_HEAD
    return HUB_PREFIX + _AI2_MLP.sub(r"\1mlp.", _AI2_ATTENTION.sub(r"\1self_attn.", ai2))


def layout_of(names: Iterable[str], where: Path) -> Layout:
    """The layout whose names these are.

    Raises:
        UserError: none.
    """
    for name in names:
        if name.startswith("model.transformer."):
            return "hub"
        if name.startswith("model.language_model."):
            return "native"
        if name.startswith("transformer."):
            return "ai2"
    raise UserError(where, "holds no tensor of a known layout", f"one of {', '.join(LAYOUTS)}")


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1
