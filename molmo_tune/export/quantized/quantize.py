"""Quantization of a merged checkpoint to 4 or 8 bits, verified by loading it back.

    nf4, int8   bitsandbytes, native layout: quantized in blocks across rows, which a reader of the
                hub layout could not split
    w4a16       compressed-tensors, native layout, for the same reason (`int4_files`)
    fp8         compressed-tensors, hub layout (`fp8_files`)

Only the decoder's linear layers are quantized. Vision tower, connector, embedding and head stay in
bfloat16, because the accuracy of points depends on them. The files, as Transformers loads them,
must answer exactly as the merged model quantized in memory. The difference to the unquantized model
is a property of the format and is only reported.

Limitations: no calibration with data (GPTQ, AWQ), and no GPU.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from molmo_tune import choices
from molmo_tune.atomic_files import write_json
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.processor import Processor
from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.config_files import CONFIG, side_files
from molmo_tune.export.layouts.tensor_layouts import Layout
from molmo_tune.export.quantized.fp8_files import fp8_config, fp8_in_place, write_fp8
from molmo_tune.export.quantized.int4_files import int4_in_place, write_int4
from molmo_tune.export.report import QuantizationReport
from molmo_tune.export.verification.probes import (
    ModelOutputs,
    largest_diff,
    make_probes,
    mean_diff,
    run_probes,
)
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.quantization import keep_trainable_kernels, require_bitsandbytes
from molmo_tune.units import difference

Kind = choices.ExportQuantization
KIND_LAYOUTS: dict[Kind, Layout] = {
    "nf4": "native",
    "int8": "native",
    "w4a16": "native",
    "fp8": "hub",
}
_BITSANDBYTES = ("nf4", "int8")
_KEPT = ("vision tower", "connector", "embedding", "lm_head")


def require_quantizable(kind: Kind, layout: Layout | None, dtype: str | None) -> Layout:
    """Return the layout of checkpoints of this kind.

    Raises:
        UserError: the given layout or dtype is not possible, or a package is missing.
    """
    own = KIND_LAYOUTS[kind]
    if dtype == "float32":
        raise UserError("--dtype", f"{dtype} with --quantize {kind}", "bfloat16", "omit it")
    if layout not in (None, own):
        raise UserError("--layout", f"{layout} with --quantize {kind}", own, "omit it")
    if kind in _BITSANDBYTES:
        require_bitsandbytes("--quantize", kind)
    elif importlib.util.find_spec("compressed_tensors") is None:
        raise UserError(
            "--quantize",
            f"the package compressed-tensors, which {kind} needs, is not installed",
            fix="run pip install 'molmo-tune[compressed]'",
        )
    return own


def quantize_export(merged: Path, out: Path, kind: Kind) -> QuantizationReport:
    """Write a quantized checkpoint and verify it; return the section of the report.

    Args:
        merged: a verified checkpoint in the kind's layout, in bfloat16, with all its files.
        out: existing folder.
        kind: of quantization.

    Raises:
        UserError: verification failed.
    """
    _write(merged, out, kind)
    return _verify(merged, out, kind)


def _write(merged: Path, out: Path, kind: Kind) -> None:
    for file in side_files(merged):
        shutil.copyfile(file, out / file.name)
    if kind == "fp8":
        write_fp8(read_checkpoint(merged), out)
        quantization = fp8_config()
    elif kind == "w4a16":
        quantization = write_int4(merged, out)
    else:
        model = load_model(str(merged), dtype=torch.bfloat16, quantize=kind)
        save_torch_state_dict(model.state_dict(), out, metadata={"format": "pt"})
        quantization = model.config.to_dict()["quantization_config"]
    config = json.loads((merged / CONFIG).read_text(encoding="utf-8"))
    write_json(out / CONFIG, config | {"quantization_config": quantization})


def _verify(merged: Path, out: Path, kind: Kind) -> QuantizationReport:
    processor = load_processor(str(out))
    probes = make_probes(processor)
    unquantized = _outputs(lambda: load_model(str(merged), dtype=torch.bfloat16), processor, probes)
    expected = _outputs(lambda: _quantized_in_place(merged, kind), processor, probes)
    found = _outputs(lambda: load_quantized(out), processor, probes)
    diff = largest_diff(found, expected)
    if diff != 0:
        wrote = f"logits differ by {difference(diff)} from those of quantization in memory"
        raise UserError(out, wrote, "identical logits")
    answers = tuple(zip(probes, unquantized.answers, found.answers, strict=True))
    return {
        "kind": kind,
        "kept_in_bfloat16": list(_KEPT),
        "diff_to_quantized_in_memory": diff,
        "max_logit_diff": largest_diff(found, unquantized),
        "mean_logit_diff": mean_diff(found, unquantized),
        "answers": answers,
        "equal_answers": sum(before == after for _, before, after in answers),
    }


def load_quantized(folder: Path) -> Molmo:
    """Load a quantized checkpoint on the CPU, as Transformers does."""
    model = load_model(str(folder), dtype=torch.bfloat16)
    keep_trainable_kernels(model)
    return model


def _quantized_in_place(merged: Path, kind: Kind) -> Molmo:
    if kind == "fp8":
        return fp8_in_place(load_model(str(merged), dtype=torch.bfloat16))
    if kind == "w4a16":
        return int4_in_place(load_model(str(merged), dtype=torch.bfloat16))
    return load_model(str(merged), dtype=torch.bfloat16, quantize=kind)


def _outputs(
    load: Callable[[], Any], processor: Processor, probes: dict[str, EncodedSample]
) -> ModelOutputs:
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)  # or it warns of a cast in every layer
    try:
        return run_probes(load(), processor, probes)
    finally:
        logger.setLevel(level)
        gc.collect()  # before the next model is loaded
