"""A LoRA trained on split projections, rewritten exactly to the fused modules that vLLM serves.

vLLM loads adapters by hub names and knows one A and one B for q‖k‖v and one for up‖gate. Several
small updates of rows are one larger update with stacked A and block-diagonal B:

    [s·Bq·Aq]   [Bq  0  0] [Aq]
    [s·Bk·Ak] = [ 0 Bk  0]·[Ak]·s          rank 3r for attention, 2r for the MLP's input
    [s·Bv·Av]   [ 0  0 Bv] [Av]

so nothing is approximated. Ranks differ by module; `rank_pattern` and `alpha_pattern` say so to
PEFT and to vLLM, and because alpha grows with the rank the scale is the same for all, also for a
server that ignores the patterns.

What it does not do: DoRA (its lengths of rows are no low-rank update), connector and vision tower
(vLLM 0.33 lets no adapter into them for Molmo 2); both are refused with the way out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from molmo_tune.atomic_files import write_json
from molmo_tune.errors import UserError
from molmo_tune.export.files.tensor_files import TensorSpec, read_tensor_file, write_tensor_file
from molmo_tune.export.layouts.hub_layout import hub_sources
from molmo_tune.export.layouts.layouts import Shapes
from molmo_tune.export.weight_updates import PEFT_PREFIX, LoraUpdates, WeightUpdates
from molmo_tune.model.adapters import part_of

_USE_HUB = "export with --layout hub instead"
_LEAVES = ("self_attn.att_proj", "self_attn.attn_out", "mlp.ff_proj", "mlp.ff_out")
WEIGHTS_NAME, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` accepts."""


def require_fusible(changes: WeightUpdates, where: Path) -> LoraUpdates:
    """The changes as a LoRA on the language model alone.

    Raises:
        UserError: they are not one; says why and what to do.
    """
    if not isinstance(changes, LoraUpdates):
        raise UserError(where, "weights trained whole", "a LoRA adapter", _USE_HUB)
    if changes.magnitudes:
        raise UserError(
            where,
            "a DoRA adapter: its lengths of rows are no low-rank update, and vLLM serves no DoRA",
            "a LoRA, rsLoRA or PiSSA adapter",
            _USE_HUB,
        )
    others = sorted({part_of(module) for module in changes.pairs} - {"language"})
    if others:
        raise UserError(
            where,
            f"trained parts {', '.join(others)}, into which vLLM lets no adapter for Molmo 2",
            "an adapter on the language model alone",
            f"{_USE_HUB}, or train with adapter.targets: [language]",
        )
    return changes


def write_fused_adapter(lora: LoraUpdates, shapes: Shapes, base_name: str, out: Path) -> None:
    """Write a PEFT folder in hub names.

    Args:
        lora: from `require_fusible`.
        shapes: of the native model.
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
    write_tensor_file(out / WEIGHTS_NAME, stored, {"format": "pt"})
    write_json(out / CONFIG_NAME, _config(ranks, lora.scale, base_name))


def fused_changes(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Read a fused adapter back: pairs (hub module, its whole update in float32)."""
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    stored = {tensor.name: tensor for tensor in read_tensor_file(folder / WEIGHTS_NAME).tensors}
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
    """The smallest `--max-lora-rank` that takes this adapter; None when none does."""
    rank = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))["r"]
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)


def _fused_modules(lora: LoraUpdates) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(hub module, its native modules in order) for every block that was trained."""
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
    """A ``(sum of ranks, in)`` and B ``(sum of rows, sum of ranks)``; untrained rows are zero."""
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
