"""The adapter of a run in its own folder, in PEFT's format, with the processor of the run.

Only the name of the base is rewritten, because training may have stored a local path. The folder is
read back: its matrices must be bit-identical to the run's, and PEFT must load all of them.

Limitations: a full fine-tune has no adapter; vLLM needs other names (`vllm_adapter`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from molmo_tune.atomic_files import atomic_folder, require_new, write_json, write_text
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import limits_of
from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.config_files import copy_processor_files
from molmo_tune.export.model_card import model_card, public_name
from molmo_tune.export.preconditions import require_fit, require_trained_base
from molmo_tune.export.report import REPORT_FILE, ExportReport
from molmo_tune.export.verification.verify import require_same_settings
from molmo_tune.export.weight_updates import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LoraUpdates,
    read_lora,
    read_updates,
)
from molmo_tune.model.adapters import load_adapter
from molmo_tune.model.loading import checkpoint_folder, load_model, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """An exported adapter: its folder and the number of trained modules."""

    folder: Path
    num_modules: int


def export_peft_adapter(run: RunFolder, out: Path) -> PeftAdapter:
    """Copy the adapter of a run and verify the copy.

    Args:
        run: a finished run.
        out: must not exist yet.

    Raises:
        UserError: there is no adapter, the base differs from the run's, the target exists, or
            verification failed.
    """
    run.require()
    require_new(out)
    recipe = load_recipe(run.recipe)
    updates = read_updates(run.adapter)
    if not isinstance(updates, LoraUpdates):
        raise UserError(run.adapter, "a full fine-tune", "an adapter", "export with --layout hub")
    base = read_checkpoint(checkpoint_folder(recipe.model.name))
    require_fit(base, updates)
    require_trained_base(run, base, load_processor(recipe.model.name))
    limits = limits_of(recipe)
    with atomic_folder(out) as unfinished:
        copy_processor_files(base.folder, unfinished, limits)
        shutil.copyfile(run.adapter / ADAPTER_WEIGHTS, unfinished / ADAPTER_WEIGHTS)
        _write_config(run.adapter, unfinished, recipe.model.name)
        require_same_settings(load_processor_of(unfinished, base.folder), limits, unfinished)
        _verify(updates, unfinished, recipe.model.name)
        report: ExportReport = {
            "layout": "adapter",
            "base": public_name(recipe.model.name),
            "modules": sorted(updates.pairs),
            "processor": asdict(limits),
        }
        write_json(unfinished / REPORT_FILE, report)
        card = model_card(recipe, run, report, base.folder)
        write_text(unfinished / "README.md", card)
    return PeftAdapter(out, len(updates.pairs))


def load_processor_of(adapter: Path, base: Path) -> Processor:
    """Load the processor of an adapter folder with the `config.json` of the base."""
    config = adapter / "config.json"
    shutil.copyfile(base / "config.json", config)
    try:
        return load_processor(str(adapter))
    finally:
        config.unlink()


def _write_config(adapter: Path, out: Path, base_name: str) -> None:
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    changed = {"base_model_name_or_path": base_name, "inference_mode": True}
    write_json(out / ADAPTER_CONFIG, config | changed)


def _verify(updates: LoraUpdates, folder: Path, base_name: str) -> None:
    exported = read_lora(folder)
    for module, (a, b) in updates.pairs.items():
        for ours, theirs in zip(exported.matrices(module), (a, b), strict=True):
            if not ours.equal(theirs.rows().float()):
                raise UserError(folder, f"{module} differs from the run's")
    model = load_adapter(load_model(base_name), folder)
    found = {name for name, _ in model.named_modules() if name.endswith(".lora_A.default")}
    if len(found) != len(updates.pairs):
        raise UserError(folder, f"PEFT loads {len(found)} of {len(updates.pairs)} modules")
