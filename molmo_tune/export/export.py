"""Export of a run to a checkpoint: merged weights, side files, verification report, model card.

All three layouts take the same path (`tensor_layouts`): read headers, write rows, copy side files,
read everything back and compare. The folder gets its name only when all of it is written and
verified (`atomic_folder`).

Limitations: adapters are exported by `peft_adapter` and `vllm_adapter`, checkpoints without a run
by `convert`.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from molmo_tune.atomic_files import atomic_folder, require_new, work_name, write_json, write_text
from molmo_tune.encoding.sources import limits_of
from molmo_tune.export.files.checkpoint import Checkpoint, read_checkpoint
from molmo_tune.export.files.config_files import copy_model_files
from molmo_tune.export.layouts.tensor_layouts import Layout
from molmo_tune.export.merge import DTYPES, WEIGHT_FILES, write_layout
from molmo_tune.export.model_card import model_card, public_name
from molmo_tune.export.preconditions import require_free_space, require_trained_base
from molmo_tune.export.quantized.quantize import (
    Kind,
    quantize_export,
    require_quantizable,
)
from molmo_tune.export.report import REPORT_FILE, ExportReport
from molmo_tune.export.verification.load_models import load_export, load_run
from molmo_tune.export.verification.tensor_report import TensorReport, compare_tensors
from molmo_tune.export.verification.verify import Verification, require_same_settings, verify_export
from molmo_tune.export.verification.vllm_requirements import require_no_worse, vllm_report
from molmo_tune.export.weight_updates import WeightUpdates, read_updates
from molmo_tune.model.loading import checkpoint_folder, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder

_QUANTIZED_COPIES = 1.7  # the merged checkpoint, and its 8-bit copy of at most 0.7 times its size


@dataclass(frozen=True, slots=True)
class ExportResult:
    """An export and its verification.

    ``found`` are weight files that an earlier, killed export had completed.
    """

    folder: Path
    tensors: TensorReport
    verification: Verification
    report: ExportReport
    found: tuple[str, ...] = ()


def export_run(
    run: RunFolder,
    out: Path,
    *,
    layout: Layout | None = None,
    dtype: str | None = None,
    quantize: Kind | None = None,
) -> ExportResult:
    """Merge, write and verify a run; resume if an earlier export of it was killed.

    Args:
        run: a finished run.
        out: must not exist yet.
        layout: of the new checkpoint; None for the layout that `quantize` needs, or hub.
        dtype: ``base``, ``float32`` or ``bfloat16``; None for the recipe's `export.dtype`.
        quantize: quantize the verified checkpoint, and verify the result, too.

    Raises:
        UserError: there is no adapter, the base differs from the run's, the disk is full, the
            target exists, or verification failed.
    """
    run.require()
    recipe = load_recipe(run.recipe)
    own = require_quantizable(quantize, layout, dtype) if quantize else layout or "hub"
    new_dtype = torch.bfloat16 if quantize else DTYPES[dtype or recipe.export.dtype]
    require_new(out)
    updates = read_updates(run.adapter)
    base = read_checkpoint(checkpoint_folder(recipe.model.name))
    require_trained_base(run, base, load_processor(recipe.model.name))
    work = work_name([*base.paths, *sorted(run.adapter.iterdir())], own, new_dtype, quantize)
    place = "merged" if quantize else "."
    with atomic_folder(out, work, [f"{place}/{name}" for name in WEIGHT_FILES]) as unfinished:
        require_free_space(
            unfinished, base, new_dtype, copies=_QUANTIZED_COPIES if quantize else 1.0
        )
        merged = unfinished / place
        merged.mkdir(exist_ok=True)
        written = write_layout(base, updates, merged, own, new_dtype)
        side_layout: Layout = "native" if own == "native" else "hub"
        copy_model_files(base.folder, merged, side_layout, new_dtype, limits_of(recipe))
        tensors, verification = _verify(run, recipe, base, updates, merged, new_dtype)
        report: ExportReport = {
            "layout": own,
            "base": public_name(recipe.model.name),
            "tensors": tensors.to_json(),
            "max_logit_diff": verification.max_logit_diff,
            "rounding_diff": verification.rounding_diff,
            "merge_floor": verification.merge_floor,
            "answers": verification.answers,
            "equal_answers": verification.equal_answers,
            "processor": asdict(limits_of(recipe)),
            "base_recorded": run.base.is_file(),
        }
        if quantize:
            report["quantized"] = quantize_export(merged, unfinished, quantize)
            shutil.rmtree(merged)
        if own == "hub":
            missing = require_no_worse(unfinished, base.folder)
            report["vllm"] = vllm_report(unfinished, missing)
        write_json(unfinished / REPORT_FILE, report)
        card = model_card(recipe, run, report, base.folder)
        write_text(unfinished / "README.md", card)
    return ExportResult(out, tensors, verification, report, written.found)


def _verify(
    run: RunFolder,
    recipe: Recipe,
    base: Checkpoint,
    updates: WeightUpdates,
    folder: Path,
    dtype: torch.dtype | None,
) -> tuple[TensorReport, Verification]:
    """Read the export back; compare its tensors with the base and its outputs with the run."""
    export = read_checkpoint(folder)
    tensors = compare_tensors(base, export, updates, dtype)
    limits = limits_of(recipe)
    processors = load_processor(recipe.model.name), load_processor(str(folder))
    require_same_settings(processors[1], limits, folder)
    verification = verify_export(
        partial(load_run, run, recipe.model.name, base),
        partial(load_export, export),
        processors,
        max_crops=limits.max_crops,
        stored=dtype or base.dtype,
        where=folder,
    )
    return tensors, verification
