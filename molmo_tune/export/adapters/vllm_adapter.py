"""The adapter of a run in a folder that vLLM serves on top of the unchanged base.

Verification reads it back from disk: the update of every fused module must equal the updates of its
split modules, row by row. The names are hub names, because vLLM loads only the hub layout.

Limitations: vLLM is not run; it needs its own environment.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from molmo_tune.atomic_files import atomic_folder, require_new, write_json, write_text
from molmo_tune.encoding.sources import limits_of
from molmo_tune.errors import UserError
from molmo_tune.export.adapters.fused_adapter import (
    USE_HUB,
    VLLM_RANKS,
    fused_updates,
    require_fusible,
    smallest_vllm_rank,
    write_fused_adapter,
)
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.layouts.hub_layout import hub_sources
from molmo_tune.export.layouts.tensor_layouts import Shapes
from molmo_tune.export.model_card import model_card, public_name
from molmo_tune.export.preconditions import require_fit, require_trained_base
from molmo_tune.export.report import REPORT_FILE, ExportReport
from molmo_tune.export.verification.vllm_requirements import VLLM_VERSION, hf_overrides
from molmo_tune.export.weight_updates import LoraUpdates, read_updates
from molmo_tune.model.loading import checkpoint_folder, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder

MAX_UPDATE_DIFF = 1e-6  # relative to the largest absolute entry of the update


@dataclass(frozen=True, slots=True)
class VllmAdapter:
    """An exported adapter: its folder, number of fused modules, and options for vLLM."""

    folder: Path
    num_modules: int
    max_lora_rank: int
    hf_overrides: dict[str, int]


def export_vllm_adapter(run: RunFolder, out: Path) -> VllmAdapter:
    """Fuse the adapter of a run for vLLM and verify the result.

    Args:
        run: a finished run.
        out: must not exist yet.

    Raises:
        UserError: there is no LoRA on the language model alone, its rank is too large for vLLM, the
            target exists, or verification failed.
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
        modules = _verify(lora, shapes, unfinished)
        rank = smallest_vllm_rank(unfinished)
        if rank is None:
            largest = f"at most {VLLM_RANKS[-1]}, the largest that vLLM serves"
            raise UserError(run.adapter, "its fused rank is too large", largest, USE_HUB)
        overrides = hf_overrides(base.folder) if base.layout == "hub" else {}
        report: ExportReport = {
            "layout": "vllm-adapter",
            "base": public_name(recipe.model.name),
            "modules": sorted(modules),
            "largest_update_diff": max(modules.values()),
            "vllm": {
                "version": VLLM_VERSION,
                "was_run": False,
                "max_lora_rank": rank,
                "hf_overrides": overrides,
            },
            "processor": asdict(limits_of(recipe)),
            "base_recorded": run.base.is_file(),
        }
        write_json(unfinished / REPORT_FILE, report)
        card = model_card(recipe, run, report, base.folder)
        write_text(unfinished / "README.md", card)
    return VllmAdapter(out, len(modules), rank, overrides)


def _verify(lora: LoraUpdates, shapes: Shapes, folder: Path) -> dict[str, float]:
    """Return the relative difference between each fused update and its split updates."""
    diffs: dict[str, float] = {}
    for hub_module, update in fused_updates(folder):
        sources = hub_sources(f"{hub_module}.weight") or ()
        split = torch.cat([_update(lora, source, shapes) for source in sources])
        diff, largest = float((update - split).abs().max()), float(split.abs().max())
        if diff > MAX_UPDATE_DIFF * largest:
            raise UserError(folder, f"the update of {hub_module} differs from {sources[0]}'s …")
        diffs[hub_module] = diff / largest if largest else 0.0
    return diffs


def _update(lora: LoraUpdates, native: str, shapes: Shapes) -> torch.Tensor:
    module = native.removesuffix(".weight")
    if module not in lora.pairs:
        return torch.zeros(shapes[native])
    a, b = lora.matrices(module)
    return lora.scale * (b.float() @ a.float())
