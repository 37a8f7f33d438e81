"""A run → its adapter as a folder of its own, in PEFT's format, with the processor it learned on.

Nothing is rewritten but the name of the base, which training took from the machine it ran on. The
folder is read back and must hold the run's matrices bit for bit, fit the base, and move its logits.

What it does not do: weights trained whole (they are no adapter), or vLLM's names (`vllm_adapter`).
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
from molmo_tune.export.card import model_card, public_name
from molmo_tune.export.export import REPORT, require_trained_base
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.config_files import copy_processor_files
from molmo_tune.export.merge import require_fit
from molmo_tune.export.verification.verify import require_same_settings
from molmo_tune.export.weight_updates import LoraUpdates, read_lora, read_updates
from molmo_tune.model.adapters import load_adapter
from molmo_tune.model.loading import checkpoint_folder, load_model, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """Where it is and how many modules it changes."""

    folder: Path
    num_modules: int


def export_peft_adapter(run: RunFolder, out: Path) -> PeftAdapter:
    """Copy, prove, rename.

    Raises:
        UserError: no run, weights trained whole, another base, a target that exists, or a failed
            proof.
    """
    run.require()
    require_new(out)
    recipe = load_recipe(run.recipe)
    changes = read_updates(run.adapter)
    if not isinstance(changes, LoraUpdates):
        raise UserError(
            run.adapter, "weights trained whole", "an adapter", "export with --layout hub"
        )
    base = read_checkpoint(checkpoint_folder(recipe.model.name))
    require_fit(base, changes)
    require_trained_base(run, base, load_processor(recipe.model.name))
    limits = limits_of(recipe)
    with atomic_folder(out) as unfinished:
        copy_processor_files(base.folder, unfinished, limits)
        shutil.copyfile(run.adapter / WEIGHTS, unfinished / WEIGHTS)
        _write_config(run.adapter / CONFIG, unfinished / CONFIG, recipe.model.name)
        require_same_settings(load_processor_of(unfinished, base.folder), limits, unfinished)
        _prove(changes, unfinished, recipe.model.name)
        report = {
            "layout": "adapter",
            "base": public_name(recipe.model.name),
            "modules": sorted(changes.pairs),
            "processor": asdict(limits),
        }
        write_json(unfinished / REPORT, report)
        card = model_card(recipe, run, report, base.folder)
        write_text(unfinished / "README.md", card)
    return PeftAdapter(out, len(changes.pairs))


def load_processor_of(adapter: Path, base: Path) -> Processor:
    """The processor in an adapter's folder, which has no `config.json` to say what it is."""
    borrowed = adapter / "config.json"
    shutil.copyfile(base / "config.json", borrowed)
    try:
        return load_processor(str(adapter))
    finally:
        borrowed.unlink()


def _write_config(old: Path, new: Path, base_name: str) -> None:
    config = json.loads(old.read_text(encoding="utf-8"))
    write_json(new, config | {"base_model_name_or_path": base_name, "inference_mode": True})


def _prove(changes: LoraUpdates, folder: Path, base_name: str) -> None:
    again = read_lora(folder)
    for module, (a, b) in changes.pairs.items():
        for ours, theirs in zip(again.matrices(module), (a, b), strict=True):
            if not ours.equal(theirs.rows().float()):
                raise UserError(folder, f"{module} is not the run's")
    model = load_adapter(load_model(base_name), folder)
    found = {name for name, _ in model.named_modules() if name.endswith(".lora_A.default")}
    if len(found) != len(changes.pairs):
        raise UserError(folder, f"PEFT takes {len(found)} of {len(changes.pairs)} modules")
