"""A run → a folder that serves: merged weights, the base's other files, a proof and a card.

One way for the three layouts of a whole checkpoint (`layouts`): read headers, write rows, copy what
lies beside, read everything back and compare. The folder appears under its name only when all of it
is written and proven (`atomic_folder`).

What it does not do: adapters (`peft_adapter`, `vllm_adapter`), or checkpoints without a run
(`convert`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from molmo_tune.atomic_files import atomic_folder, require_new, work_name, write_json, write_text
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import limits_of
from molmo_tune.errors import UserError
from molmo_tune.export.card import model_card, public_name
from molmo_tune.export.files.checkpoint import Checkpoint, read_checkpoint
from molmo_tune.export.files.config_files import copy_model_files, side_files
from molmo_tune.export.layouts.hub_layout import NATIVE_EMBEDDING, NATIVE_NORM
from molmo_tune.export.layouts.layouts import HUB_HEAD, Layout
from molmo_tune.export.layouts.vllm_requirements import require_no_worse, vllm_report
from molmo_tune.export.merge import WEIGHT_FILES, write_layout
from molmo_tune.export.quantized.quantized import (
    Kind,
    quantize_export,
    require_quantizable,
)
from molmo_tune.export.verification.stored_16bit import LARGE, keep_16bit, load_for_proof
from molmo_tune.export.verification.tensor_report import TensorReport, compare_tensors
from molmo_tune.export.verification.verify import Verification, require_same_settings, verify_export
from molmo_tune.export.weight_updates import WeightUpdates, read_updates
from molmo_tune.model.adapters import WEIGHTS_FILE, load_adapter
from molmo_tune.model.fingerprint import (
    ROWS,
    processor_identity,
    require_same_base,
    weights_identity,
)
from molmo_tune.model.loading import (
    checkpoint_folder,
    load_model,
    load_processor,
    model_from_tensors,
)
from molmo_tune.model.molmo import Molmo
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder

REPORT = "export_report.json"
_QUANTIZED_ROOM = 1.7  # the merged checkpoint, and at most so much of it again in 8 bits
DTYPES = {"base": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Where the export is and what was proven.

    ``found`` are weight files that an export killed before had finished.
    """

    folder: Path
    account: TensorReport
    proof: Verification
    report: dict[str, Any]
    found: tuple[str, ...] = ()


def export_run(
    run: RunFolder,
    out: Path,
    *,
    layout: Layout | None = None,
    dtype: str | None = None,
    quantize: Kind | None = None,
) -> ExportResult:
    """Merge, write, prove, rename. An export that was killed is gone on with.

    Args:
        run: a finished run.
        out: must not exist yet.
        layout: of the new checkpoint; hub when None, or what the quantized kind needs.
        dtype: ``base``, ``float32`` or ``bfloat16``; the recipe's `export.dtype` when None.
        quantize: make the proven checkpoint one of 4 or 8 bits, and prove that, too.

    Raises:
        UserError: no run, no adapter, another base, no room, a target that exists, or a failed
            proof.
    """
    run.require()
    recipe = load_recipe(run.recipe)
    own = require_quantizable(quantize, layout, dtype) if quantize else layout or "hub"
    wanted = torch.bfloat16 if quantize else DTYPES[dtype or recipe.export.dtype]
    require_new(out)
    changes = read_updates(run.adapter)
    base = read_checkpoint(checkpoint_folder(recipe.model.name))
    require_trained_base(run, base, load_processor(recipe.model.name))
    work = work_name([*base.paths, *sorted(run.adapter.iterdir())], own, wanted, quantize)
    place = "merged" if quantize else "."
    with atomic_folder(out, work, [f"{place}/{name}" for name in WEIGHT_FILES]) as unfinished:
        require_room(unfinished, base, wanted, copies=_QUANTIZED_ROOM if quantize else 1.0)
        whole = unfinished / place
        whole.mkdir(exist_ok=True)
        written = write_layout(base, changes, whole, own, wanted)
        side_layout: Layout = "native" if own == "native" else "hub"
        copy_model_files(base.folder, whole, side_layout, wanted, limits_of(recipe))
        account, proof = _prove(run, recipe, base, changes, whole, wanted)
        report = {
            "layout": own,
            "base": public_name(recipe.model.name),
            "tensors": account.to_json(),
            **asdict(proof),
            "equal_answers": proof.equal_answers,
            "processor": asdict(limits_of(recipe)),
            "base_recorded": run.base.is_file(),
        }
        if quantize:
            report["quantized"] = quantize_export(whole, unfinished, quantize)
            shutil.rmtree(whole)
        if own == "hub":
            missing = require_no_worse(unfinished, base.folder)
            report["vllm"] = vllm_report(unfinished, missing)
        write_json(unfinished / REPORT, report)
        card = model_card(recipe, run, report, base.folder)
        write_text(unfinished / "README.md", card)
    return ExportResult(out, account, proof, report, written.found)


def require_room(
    folder: Path, base: Checkpoint, dtype: torch.dtype | None, *, copies: float = 1.0
) -> None:
    """Check that the disk takes a checkpoint of this size, or several, with what is there already.

    Raises:
        UserError: it does not.
    """
    tensors = [tensor for file in base.files for tensor in file.tensors]
    weights = sum(t.num_rows * t.row_bytes * _growth(t.dtype, dtype) for t in tensors)
    needed = weights * 1.02 * copies + sum(file.stat().st_size for file in side_files(base.folder))
    needed -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(folder.parent, f"{free / 1e9:.1f} GB are free", f"{needed / 1e9:.1f} GB")


def _growth(stored: torch.dtype, dtype: torch.dtype | None) -> float:
    return 1.0 if dtype is None else dtype.itemsize / stored.itemsize


def _prove(
    run: RunFolder,
    recipe: Recipe,
    base: Checkpoint,
    changes: WeightUpdates,
    folder: Path,
    dtype: torch.dtype | None,
) -> tuple[TensorReport, Verification]:
    """Read the export back and compare it with the base, tensor by tensor, and with the run."""
    export = read_checkpoint(folder)
    account = compare_tensors(base, export, changes, dtype)
    limits = limits_of(recipe)
    processors = load_processor(recipe.model.name), load_processor(str(folder))
    require_same_settings(processors[1], limits, folder)
    proof = verify_export(
        partial(_load_run, run, recipe.model.name, base),
        partial(load_written, export),
        processors,
        max_crops=limits.max_crops,
        stored=dtype or stored_type(base),
        where=folder,
    )
    return account, proof


def stored_type(checkpoint: Checkpoint) -> torch.dtype:
    """Type of the weights in its files."""
    return checkpoint.where[HUB_HEAD][0].tensor.dtype


def _load_run(run: RunFolder, name: str, base: Checkpoint) -> torch.nn.Module:
    if (run.adapter / WEIGHTS_FILE).is_file():  # trained in float32, and not to be rounded
        return load_adapter(load_model(name), run.adapter)
    return load_adapter(load_for_proof(name, stored_type(base), base.num_weights), run.adapter)


def load_written(export: Checkpoint) -> Molmo:
    """The model of a checkpoint, computing in float32: as transformers loads it, where it can."""
    if export.layout != "ai2":
        return load_for_proof(str(export.folder), stored_type(export), export.num_weights)
    if export.num_weights >= LARGE and stored_type(export) != torch.float32:
        tensors = {name: export.native_rows(name) for name in export.where}
        return keep_16bit(model_from_tensors(export.config, tensors))
    tensors = {name: export.native_rows(name).float() for name in export.where}
    return model_from_tensors(export.config, tensors)


def require_trained_base(run: RunFolder, base: Checkpoint, processor: Processor) -> None:
    """Check that this is the base that the run recorded, if it recorded one.

    Raises:
        UserError: it is another.
    """
    if run.base.is_file():
        names = (NATIVE_NORM, NATIVE_EMBEDDING, HUB_HEAD)
        weights = weights_identity(
            *(base.native_rows(name, 0, min(ROWS, base.shapes[name][0])) for name in names)
        )
        recorded = json.loads(run.base.read_text(encoding="utf-8"))
        found = processor_identity(processor) | {"weights": weights}
        require_same_base(recorded, found, run.base)
