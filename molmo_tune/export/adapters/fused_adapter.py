"""A LoRA on split projections, rewritten exactly for the fused modules that vLLM serves.

vLLM loads adapters by hub names, with one A and one B for q‖k‖v and for up‖gate. Several updates of
stacked rows equal one update with stacked A and block-diagonal B:

    [s·Bq·Aq]   [Bq  0  0] [Aq]
    [s·Bk·Ak] = [ 0 Bk  0]·[Ak]·s          rank 3r for attention, 2r for the MLP's input
    [s·Bv·Av]   [ 0  0 Bv] [Av]

so nothing is approximated. Ranks differ by module, given to PEFT and vLLM as `rank_pattern` and
`alpha_pattern`. As alpha grows with the rank, all modules have the same scale, even for a server
that ignores the patterns.

Limitations: no DoRA (its row norms are not a low-rank update), no connector or vision tower (vLLM
0.33 has no adapters there for Molmo 2); both are rejected with advice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from molmo_tune.atomic_files import write_json
from molmo_tune.errors import UserError
from molmo_tune.export.files.safetensors_files import (
    TensorSpec,
    read_tensor_file,
    write_tensor_file,
)
from molmo_tune.export.layouts.hub_layout import hub_sources
from molmo_tune.export.layouts.tensor_layouts import Shapes
from molmo_tune.export.weight_updates import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PEFT_PREFIX,
    LoraUpdates,
    WeightUpdates,
)
from molmo_tune.model.adapters import part_of

USE_HUB = "export with --layout hub instead"
_LEAVES = ("self_attn.att_proj", "self_attn.attn_out", "mlp.ff_proj", "mlp.ff_out")
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that `--max-lora-rank` accepts."""


def require_fusible(updates: WeightUpdates, where: Path) -> LoraUpdates:
    """Return the updates as a LoRA on the language model alone.

    Raises:
        UserError: they are something else.
    """
    if not isinstance(updates, LoraUpdates):
        raise UserError(where, "a full fine-tune", "a LoRA adapter", USE_HUB)
    if updates.magnitudes:
        raise UserError(
            where,
            "a DoRA adapter, which vLLM does not serve",
            "a LoRA, rsLoRA or PiSSA adapter",
            USE_HUB,
        )
    others = sorted({part_of(module) for module in updates.pairs} - {"language"})
    if others:
        raise UserError(
            where,
            f"an adapter on {', '.join(others)}, which vLLM does not serve for Molmo 2",
            "an adapter on the language model alone",
            f"{USE_HUB}, or train with adapter.targets: [language]",
        )
    return updates


def write_fused_adapter(lora: LoraUpdates, shapes: Shapes, base_name: str, out: Path) -> None:
    """Write a PEFT adapter under hub names.

    Args:
        lora: from `require_fusible`.
        shapes: of the native tensors.
        base_name: for `base_model_name_or_path`.
        out: existing folder.
    """
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for hub_module, sources in _fused_modules(lora):
        a, b = _fuse(lora, sources, shapes)
        ranks[hub_module.rsplit(".", 1)[-1]] = len(a)
        tensors[f"{PEFT_PREFIX}{hub_module}.lora_A.weight"] = a
        tensors[f"{PEFT_PREFIX}{hub_module}.lora_B.weight"] = b
    stored = [(TensorSpec(n, t.dtype, tuple(t.shape)), [t.contiguous]) for n, t in tensors.items()]
    write_tensor_file(out / ADAPTER_WEIGHTS, stored, {"format": "pt"})
    write_json(out / ADAPTER_CONFIG, _config(ranks, lora.scale, base_name))


def fused_updates(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Read a fused adapter back: yield (hub module, its update ``(out, in)`` in float32)."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    stored = {tensor.name: tensor for tensor in read_tensor_file(folder / ADAPTER_WEIGHTS).tensors}
    for name, tensor in stored.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removeprefix(PEFT_PREFIX).removesuffix(".lora_A.weight")
        leaf = module.rsplit(".", 1)[-1]
        rank = config["rank_pattern"].get(leaf, config["r"])
        scale = config["alpha_pattern"].get(leaf, config["lora_alpha"]) / rank
        b = stored[f"{PEFT_PREFIX}{module}.lora_B.weight"].rows().float()
        yield module, scale * (b @ tensor.rows().float())


def smallest_vllm_rank(folder: Path) -> int | None:
    """Return the smallest `--max-lora-rank` for this adapter; None if its rank is too large."""
    rank = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"]
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)


def _fused_modules(lora: LoraUpdates) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (hub module, its native modules in order) for each trained hub module."""
    blocks = sorted({int(module.split(".layers.")[1].split(".")[0]) for module in lora.pairs})
    for block in blocks:
        for leaf in _LEAVES:
            hub_module = f"model.transformer.blocks.{block}.{leaf}"
            sources = hub_sources(f"{hub_module}.weight") or ()
            modules = tuple(source.removesuffix(".weight") for source in sources)
            if any(module in lora.pairs for module in modules):
                yield hub_module, modules


def _fuse(
    lora: LoraUpdates, modules: tuple[str, ...], shapes: Shapes
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A ``(sum of ranks, in)`` and B ``(sum of rows, sum of ranks)``, zero if untrained."""
    all_a, all_b = [], []
    for module in modules:
        num_rows = shapes[f"{module}.weight"][0]
        if module in lora.pairs:
            a, b = lora.matrices(module)
            all_a.append(a)
            all_b.append(b)
        else:
            all_b.append(torch.zeros(num_rows, 0))
    return torch.cat(all_a), torch.block_diag(*all_b)


def _config(ranks: dict[str, int], scale: float, base_name: str) -> dict[str, Any]:
    largest = max(ranks.values())
    others = {leaf: rank for leaf, rank in sorted(ranks.items()) if rank != largest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": scale * largest,
        "rank_pattern": others,
        "alpha_pattern": {leaf: scale * rank for leaf, rank in others.items()},
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
