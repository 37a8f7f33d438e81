"""A checkpoint in one layout → the same in another, nothing trained: bit for bit, or not at all.

The way back from Ai2's trainer (`model.pt` → hub), the way there, and between the hub's layout and
transformers' own. A trainer's state holds no configuration that we read, so `--like` names a
checkpoint of the same shape that does; its processor and tokenizer are taken over as they are.

What it does not do: turn the trainer's `config.yaml` into a `config.json` or back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from molmo_tune.atomic_files import atomic_folder, require_new, work_name, write_json
from molmo_tune.errors import UserError
from molmo_tune.export.card import public_name
from molmo_tune.export.export import DTYPES, REPORT, require_room
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.config_files import CONFIG, copy_model_files
from molmo_tune.export.layouts.layouts import Layout
from molmo_tune.export.layouts.vllm_requirements import unmet, vllm_report
from molmo_tune.export.merge import WEIGHT_FILES, write_layout
from molmo_tune.export.verification.tensor_report import TensorReport, compare_tensors
from molmo_tune.export.weight_updates import NoUpdates
from molmo_tune.model.loading import checkpoint_folder, load_processor


@dataclass(frozen=True, slots=True)
class Converted:
    """Where it is, which layout it came from, what became of the tensors.

    ``vllm``: of one in the hub's layout, see `vllm_contract.vllm_report`.
    """

    folder: Path
    source_layout: Layout
    account: TensorReport
    vllm: dict[str, Any]


def convert_checkpoint(
    source: Path,
    out: Path,
    *,
    layout: Layout,
    like: str | None = None,
    dtype: str | None = None,
) -> Converted:
    """Write, compare every bit, rename.

    Args:
        source: folder with weights in any layout.
        out: must not exist yet.
        layout: of the new checkpoint.
        like: checkpoint whose configuration and processor are taken; the source itself when None.
        dtype: ``base`` (or None), ``float32`` or ``bfloat16``.

    Raises:
        UserError: no checkpoint, no configuration, no room, a target that exists, or other bits.
    """
    require_new(out)
    described = checkpoint_folder(like) if like else source
    if not (described / CONFIG).is_file():
        raise UserError(
            described,
            f"no {CONFIG}",
            "the configuration and processor of a released checkpoint",
            "name one of the same shape with --like, such as --like allenai/Molmo2-8B",
        )
    wanted: torch.dtype | None = DTYPES[dtype or "base"]
    base = read_checkpoint(source, described)
    work = work_name(base.paths, layout, wanted)
    with atomic_folder(out, work, WEIGHT_FILES) as unfinished:
        require_room(unfinished, base, wanted)
        write_layout(base, NoUpdates(), unfinished, layout, wanted)
        side_layout: Layout = "native" if layout == "native" else "hub"
        copy_model_files(described, unfinished, side_layout, wanted, None)
        load_processor(str(unfinished))
        export = read_checkpoint(unfinished)
        account = compare_tensors(base, export, NoUpdates(), wanted)
        report: dict[str, Any] = {
            "layout": layout,
            "converted_from": base.layout,
            "like": public_name(str(like or source)),
            "tensors": account.to_json(),
        }
        if layout == "hub":
            report["vllm"] = vllm_report(unfinished, unmet(unfinished))
        write_json(unfinished / REPORT, report)
    return Converted(out, base.layout, account, report.get("vllm", {}))
