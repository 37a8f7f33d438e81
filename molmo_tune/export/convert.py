"""Conversion of an untrained checkpoint between layouts, bit-identical or not at all.

From Ai2's trainer (`model.pt`) to the hub layout and back, and between the hub and native layouts.
A trainer's state has no `config.json`, so `--like` names a checkpoint of the same shape; its
configuration, processor and tokenizer are copied unchanged.

Limitations: the trainer's `config.yaml` is neither read nor written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from molmo_tune.atomic_files import atomic_folder, require_new, work_name, write_json
from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.config_files import CONFIG, copy_model_files
from molmo_tune.export.layouts.tensor_layouts import Layout
from molmo_tune.export.merge import DTYPES, WEIGHT_FILES, write_layout
from molmo_tune.export.model_card import public_name
from molmo_tune.export.preconditions import require_free_space
from molmo_tune.export.report import REPORT_FILE, ExportReport, VllmReport
from molmo_tune.export.verification.tensor_report import TensorReport, compare_tensors
from molmo_tune.export.verification.vllm_requirements import unmet, vllm_report
from molmo_tune.export.weight_updates import NoUpdates
from molmo_tune.model.loading import checkpoint_folder, load_processor


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted checkpoint: its folder, the layout of its source, and the tensors by outcome.

    ``vllm`` is filled for the hub layout only; see `vllm_requirements.vllm_report`.
    """

    folder: Path
    source_layout: Layout
    tensors: TensorReport
    vllm: VllmReport


def convert_checkpoint(
    source: Path,
    out: Path,
    *,
    layout: Layout,
    like: str | None = None,
    dtype: str | None = None,
) -> Converted:
    """Convert a checkpoint and compare every bit.

    Args:
        source: folder of weights in any layout.
        out: must not exist yet.
        layout: of the new checkpoint.
        like: checkpoint with the configuration and processor to copy; None for the source itself.
        dtype: ``base`` (or None), ``float32`` or ``bfloat16``.

    Raises:
        UserError: there are no weights or no configuration, the disk is full, the target exists, or
            a bit differs.
    """
    require_new(out)
    config_folder = checkpoint_folder(like) if like else source
    if not (config_folder / CONFIG).is_file():
        raise UserError(
            config_folder,
            f"no {CONFIG}",
            "the configuration and processor of a released checkpoint",
            "name one of the same shape with --like, such as --like allenai/Molmo2-8B",
        )
    new_dtype: torch.dtype | None = DTYPES[dtype or "base"]
    base = read_checkpoint(source, config_folder)
    work = work_name(base.paths, layout, new_dtype)
    with atomic_folder(out, work, WEIGHT_FILES) as unfinished:
        require_free_space(unfinished, base, new_dtype)
        write_layout(base, NoUpdates(), unfinished, layout, new_dtype)
        side_layout: Layout = "native" if layout == "native" else "hub"
        copy_model_files(config_folder, unfinished, side_layout, new_dtype, None)
        load_processor(str(unfinished))
        export = read_checkpoint(unfinished)
        tensors = compare_tensors(base, export, NoUpdates(), new_dtype)
        report: ExportReport = {
            "layout": layout,
            "converted_from": base.layout,
            "like": public_name(str(like or source)),
            "tensors": tensors.to_json(),
        }
        if layout == "hub":
            report["vllm"] = vllm_report(unfinished, unmet(unfinished))
        write_json(unfinished / REPORT_FILE, report)
    return Converted(out, base.layout, tensors, report.get("vllm", {}))
