"""A run → a folder that serves: merged weights, the base's other files, a proof and a card.

The folder appears under its name only when everything in it is written and proven (`new_folder`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from molmo_tune.errors import UserError
from molmo_tune.export.card import model_card
from molmo_tune.export.changes import read_changes
from molmo_tune.export.checkpoint import weight_files
from molmo_tune.export.merge import TensorAccount, merge_checkpoint
from molmo_tune.export.new_folder import new_folder, require_new
from molmo_tune.export.verify import Proof, verify_export
from molmo_tune.model.adapters import load_adapter
from molmo_tune.model.loading import checkpoint_folder, load_model
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder, write_json

_NOT_COPIED = (".safetensors", ".bin", ".pt", ".gitattributes", "README.md")


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Where the export is and what was proven."""

    folder: Path
    account: TensorAccount
    proof: Proof


def export_run(run: RunFolder, out: Path, *, dtype: str | None = None) -> ExportResult:
    """Merge, write, prove, rename.

    Args:
        run: a finished run.
        out: must not exist yet.
        dtype: ``base``, ``float32`` or ``bfloat16``; the recipe's `export.dtype` when None.

    Raises:
        UserError: no run, no adapter, no room, a target that exists, or a failed proof.
    """
    run.require()
    recipe = load_recipe(run.recipe)
    wanted = _dtype(dtype or recipe.export.dtype)
    require_new(out)
    changes = read_changes(run.adapter)
    base = checkpoint_folder(recipe.model.name)
    with new_folder(out) as unfinished:
        _require_room(out, base, wanted)
        _copy_files(base, unfinished, wanted)
        account = merge_checkpoint(base, changes, unfinished, wanted)
        adapted = load_adapter(load_model(recipe.model.name), run.adapter)
        proof = verify_export(adapted, recipe.model.name, unfinished, wanted)
        report = _report(recipe, account, proof)
        write_json(unfinished / "export_report.json", report)
        card = model_card(recipe, run, report)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
    return ExportResult(out, account, proof)


def _dtype(name: str) -> torch.dtype | None:
    return {"base": None, "float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _require_room(out: Path, base: Path, dtype: torch.dtype | None) -> None:
    weights = sum(file.stat().st_size for file in weight_files(base))
    others = sum(file.stat().st_size for file in _other_files(base))
    needed = (weights * 2 if dtype == torch.float32 else weights) * 1.02 + others
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise UserError(out, f"{free / 1e9:.1f} GB are free", f"{needed / 1e9:.1f} GB")


def _other_files(base: Path) -> list[Path]:
    """What lies beside the weights and belongs to the model."""
    files = (file for file in sorted(base.iterdir()) if file.is_file())
    return [file for file in files if not file.name.endswith(_NOT_COPIED)]


def _copy_files(base: Path, out: Path, dtype: torch.dtype | None) -> None:
    for file in _other_files(base):
        shutil.copyfile(file, out / file.name)
    if dtype is None:
        return
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[key] = str(dtype).removeprefix("torch.")
    write_json(out / "config.json", config)


def _report(recipe: Recipe, account: TensorAccount, proof: Proof) -> dict[str, Any]:
    return {
        "base": recipe.model.name,
        "tensors": {"merged": len(account.merged), "unchanged": len(account.unchanged)},
        "merged_tensors": list(account.merged),
        **asdict(proof),
        "equal_answers": proof.equal_answers,
    }
