"""A merged checkpoint → one of 4 or 8 bits, loaded back and compared before it is shown.

    nf4, int8   bitsandbytes, in transformers' own layout: its files hold whole matrices in blocks,
                which no reader of the released layout could split
    w4a16       compressed-tensors, in transformers' own layout, likewise (`int4_files`)
    fp8         compressed-tensors, in the released layout (`fp8_files`)

Only the decoder's linear layers become small. Vision tower, connector, embedding and head stay in
bfloat16: they are what points are exact by. Proven is that the files, as transformers loads them,
answer exactly as the merged model does when it is quantized in memory; the distance to the model
that is not quantized is a property of the format and is only told.

What it does not do: search for better roundings with data (GPTQ, AWQ), or run on a GPU.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import save_torch_state_dict

from molmo_tune.atomic_files import write_json
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.processor import Processor
from molmo_tune.errors import UserError
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.config_files import CONFIG, side_files
from molmo_tune.export.layouts.layouts import Layout
from molmo_tune.export.quantized.fp8_files import fp8_config, fp8_in_place, write_fp8
from molmo_tune.export.quantized.int4_files import int4_in_place, write_int4
from molmo_tune.export.verification.verify import (
    ModelOutputs,
    largest_diff,
    make_probes,
    run_probes,
)
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.quantization import keep_trainable_kernels, require_bitsandbytes

Kind = Literal["nf4", "int8", "w4a16", "fp8"]
KIND_LAYOUTS: dict[Kind, Layout] = {
    "nf4": "native",
    "int8": "native",
    "w4a16": "native",
    "fp8": "hub",
}
_BITSANDBYTES = ("nf4", "int8")
_KEPT = ("vision tower", "connector", "embedding", "lm_head")


def require_quantizable(kind: Kind, layout: Layout | None, dtype: str | None) -> Layout:
    """The layout that checkpoints of this kind have.

    Raises:
        UserError: another one is asked for, or another type for what is kept, or a package is
            missing.
    """
    own = KIND_LAYOUTS[kind]
    if dtype == "float32":
        raise UserError("--dtype", f"{dtype} with --quantize {kind}", "bfloat16", "leave it away")
    if layout not in (None, own):
        raise UserError("--layout", f"{layout} with --quantize {kind}", own, "leave it away")
    if kind in _BITSANDBYTES:
        require_bitsandbytes("--quantize", kind)
    elif importlib.util.find_spec("compressed_tensors") is None:
        raise UserError(
            "--quantize",
            f"{kind} needs the package compressed-tensors",
            "it to be installed",
            "pip install 'molmo-tune[compressed]'",
        )
    return own


def quantize_export(merged: Path, out: Path, kind: Kind) -> dict[str, Any]:
    """Write a quantized checkpoint and prove it; returns what the report says.

    Args:
        merged: a proven checkpoint in the kind's layout, in bfloat16, with all its files.
        out: existing folder.
        kind: of numbers.

    Raises:
        UserError: the proof failed.
    """
    _write(merged, out, kind)
    return _prove(merged, out, kind)


def _write(merged: Path, out: Path, kind: Kind) -> None:
    for file in side_files(merged):
        shutil.copyfile(file, out / file.name)
    if kind == "fp8":
        write_fp8(read_checkpoint(merged), out)
        told = fp8_config()
    elif kind == "w4a16":
        told = write_int4(merged, out)
    else:
        model = load_model(str(merged), dtype=torch.bfloat16, quantize=kind)
        save_torch_state_dict(model.state_dict(), out, metadata={"format": "pt"})
        told = model.config.to_dict()["quantization_config"]
    config = json.loads((merged / CONFIG).read_text(encoding="utf-8"))
    write_json(out / CONFIG, config | {"quantization_config": told})


def _prove(merged: Path, out: Path, kind: Kind) -> dict[str, Any]:
    processor = load_processor(str(out))
    probes = make_probes(processor)
    whole = _hear(lambda: load_model(str(merged), dtype=torch.bfloat16), processor, probes)
    wanted = _hear(lambda: _quantized_in_place(merged, kind), processor, probes)
    found = _hear(lambda: load_quantized(out), processor, probes)
    diff = largest_diff(found, wanted)
    if diff != 0:
        raise UserError(out, f"logits differ by {diff:.2e} from quantizing in memory", "none")
    answers = tuple(zip(probes, whole.answers, found.answers, strict=True))
    return {
        "kind": kind,
        "kept_in_bfloat16": list(_KEPT),
        "diff_to_quantized_in_memory": diff,
        "max_logit_diff": largest_diff(found, whole),
        "mean_logit_diff": _mean_diff(found, whole),
        "answers": answers,
        "equal_answers": sum(before == after for _, before, after in answers),
    }


def load_quantized(folder: Path) -> Molmo:
    """As transformers loads it, on the CPU."""
    model = load_model(str(folder), dtype=torch.bfloat16)
    keep_trainable_kernels(model)
    return model


def _quantized_in_place(merged: Path, kind: Kind) -> Molmo:
    if kind == "fp8":
        return fp8_in_place(load_model(str(merged), dtype=torch.bfloat16))
    if kind == "w4a16":
        return int4_in_place(load_model(str(merged), dtype=torch.bfloat16))
    return load_model(str(merged), dtype=torch.bfloat16, quantize=kind)


def _hear(
    load: Callable[[], Any], processor: Processor, probes: dict[str, EncodedSample]
) -> ModelOutputs:
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of a cast in every layer of every pass
    try:
        return run_probes(load(), processor, probes)
    finally:
        logger.setLevel(level)
        gc.collect()  # before the next model is loaded


def _mean_diff(found: ModelOutputs, wanted: ModelOutputs) -> float:
    pairs = zip(found.logits, wanted.logits, strict=True)
    return float(torch.stack([(ours - theirs).abs().mean() for ours, theirs in pairs]).mean())
