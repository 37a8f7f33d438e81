"""A run → an adapter folder that vLLM serves beside the unchanged base, proven before it appears.

What is proven: read back from disk, the update of every fused module is that of its split modules,
row by row. The names are hub names, because vLLM loads only the hub layout.

What it does not do: run vLLM, which needs an environment of its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from molmo_tune.atomic_files import atomic_folder, require_new, write_json, write_text
from molmo_tune.encoding.sources import limits_of
from molmo_tune.errors import UserError
from molmo_tune.export.adapters.fused_adapter import (
    fused_changes,
    require_fusible,
    smallest_vllm_rank,
    write_fused_adapter,
)
from molmo_tune.export.card import model_card, public_name
from molmo_tune.export.export import REPORT, require_trained_base
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.layouts.hub_layout import hub_sources
from molmo_tune.export.layouts.layouts import Shapes
from molmo_tune.export.layouts.vllm_requirements import VLLM_VERSION, hf_overrides
from molmo_tune.export.merge import require_fit
from molmo_tune.export.weight_updates import LoraUpdates, read_updates
from molmo_tune.model.loading import checkpoint_folder, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder

MAX_UPDATE_DIFF = 1e-6  # relative to the largest entry of the update


@dataclass(frozen=True, slots=True)
class VllmAdapter:
    """Where it is, how many modules it changes, and what vLLM must be told."""

    folder: Path
    num_modules: int
    max_lora_rank: int
    hf_overrides: dict[str, int]


def export_vllm_adapter(run: RunFolder, out: Path) -> VllmAdapter:
    """Write, prove, rename.

    Raises:
        UserError: no run, not a LoRA on the language model alone, a rank beyond vLLM's, a target
        that exists, or a failed proof.
    """
    run.require()
    require_new(out)
    recipe = load_recipe(run.recipe)
    lora = require_fusible(read_updates(run.adapter), run.adapter)
    base = read_checkpoint(checkpoint_folder(recipe.model.name))
    require_fit(base, lora)
    require_trained_base(run, base, load_processor(recipe.model.name))
    shapes = base.shapes
    with atomic_folder(out) as unfinished:
        write_fused_adapter(lora, shapes, recipe.model.name, unfinished)
        modules = _prove(lora, shapes, unfinished)
        rank = smallest_vllm_rank(unfinished)
        if rank is None:
            raise UserError(run.adapter, "its fused rank is beyond vLLM's largest, 512", "less")
        report: dict[str, Any] = {
            "layout": "vllm-adapter",
            "base": public_name(recipe.model.name),
            "modules": sorted(modules),
            "largest_update_diff": max(modules.values()),
            "vllm": {
                "version": VLLM_VERSION,
                "was_run": False,
                "max_lora_rank": rank,
                "hf_overrides": hf_overrides(base.folder) if base.layout == "hub" else {},
            },
            "processor": asdict(limits_of(recipe)),
            "base_recorded": run.base.is_file(),
        }
        write_json(unfinished / REPORT, report)
        card = model_card(recipe, run, report, base.folder)
        write_text(unfinished / "README.md", card)
    return VllmAdapter(out, len(modules), rank, report["vllm"]["hf_overrides"])


def _prove(lora: LoraUpdates, shapes: Shapes, folder: Path) -> dict[str, float]:
    """How far each fused module's update is from that of its split ones, relative to it."""
    proven: dict[str, float] = {}
    for hub_module, update in fused_changes(folder):
        sources = hub_sources(f"{hub_module}.weight") or ()
        split = torch.cat([_update(lora, source, shapes) for source in sources])
        diff, largest = float((update - split).abs().max()), float(split.abs().max())
        if diff > MAX_UPDATE_DIFF * largest:
            raise UserError(folder, f"the update of {hub_module} is not that of {sources[0]} …")
        proven[hub_module] = diff / largest if largest else 0.0
    return proven


def _update(lora: LoraUpdates, native: str, shapes: Shapes) -> torch.Tensor:
    module = native.removesuffix(".weight")
    if module not in lora.pairs:
        return torch.zeros(shapes[native])
    a, b = lora.matrices(module)
    return lora.scale * (b.float() @ a.float())
