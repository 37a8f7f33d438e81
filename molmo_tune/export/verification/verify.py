"""Verification that an export answers as its run does; if it fails, no export is left behind.

Four probes (`probes`) go through the run and through the freshly loaded export:

* The processor files give the same token ids and pixels under the run's limits on frames and crops,
  and contain these limits.
* The logits agree to 1e-4 in float32. B·A·x + W·x and (W + B·A)·x round differently, and adapters
  in the whole model can differ by 1.5e-4 from that alone. If PEFT's own float32 merge (independent
  code) is that far from the run, the export may be as far, and the report says so.
* An export in a 16-bit dtype is compared with the run's weights, merged by PEFT and rounded to that
  dtype, also to 1e-4. The effect of the rounding is reported separately.
* The greedy answers are listed side by side. Different answers are only reported.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import MediaLimits
from molmo_tune.encoding.processor import Processor
from molmo_tune.errors import UserError
from molmo_tune.export.files.config_files import image_settings, video_settings
from molmo_tune.export.report import ProbeAnswers
from molmo_tune.export.verification.probes import (
    ModelOutputs,
    largest_diff,
    make_probes,
    probe_logits,
    run_probes,
)
from molmo_tune.model.adapters import bare_model
from molmo_tune.model.molmo import Molmo
from molmo_tune.units import difference, missed

MAX_LOGIT_DIFF = 1e-4
_FLOOR_FACTOR, _MAX_FLOOR = 1.2, 1e-3


@dataclass(frozen=True, slots=True)
class Verification:
    """Measured differences between an export and its run.

    Attributes:
        max_logit_diff: largest logit difference, over all probes and positions.
        rounding_diff: effect of rounding to a 16-bit dtype; 0 for float32.
        merge_floor: PEFT's own float32 merge against the run; 0 for 16-bit dtypes.
        answers: (probe, run's answer, export's answer).
    """

    max_logit_diff: float
    rounding_diff: float
    merge_floor: float
    answers: ProbeAnswers

    @property
    def equal_answers(self) -> int:
        """Number of probes with the same greedy answer."""
        return sum(ours == theirs for _, ours, theirs in self.answers)


def verify_export(
    load_run: Callable[[], Any],
    load_export: Callable[[], Any],
    processors: tuple[Processor, Processor],
    *,
    max_crops: int,
    stored: torch.dtype,
    where: Path,
) -> Verification:
    """Compare an export with its run, with one model in memory at a time.

    Args:
        load_run: returns the run's model as `load_adapter` does, in float32 and evaluation mode.
        load_export: returns the export's model, likewise.
        processors: of the base, and of the export.
        max_crops: the run's limit; the export's processor must have it, too.
        stored: dtype of the export's weights.
        where: the export, for messages.

    Raises:
        UserError: token ids, pixels or logits differ.
    """
    processor, exported_processor = processors
    ours, theirs = make_probes(processor, max_crops), make_probes(exported_processor)
    for name, probe in ours.items():
        _require_same_inputs(name, probe, theirs[name], where)
    run, merged = _run_outputs(load_run(), processor, ours, stored)
    gc.collect()  # frees the run's model before the next is loaded
    found = run_probes(load_export(), processor, theirs)
    is_float32 = stored == torch.float32
    diff = largest_diff(found, run if is_float32 else merged)
    floor = largest_diff(merged, run) if is_float32 else 0.0
    allowed = max(MAX_LOGIT_DIFF, min(_FLOOR_FACTOR * floor, _MAX_FLOOR))
    if not diff <= allowed:
        wrote, limit = missed(diff, allowed, difference)
        raise UserError(where, f"logits differ from the run's by {wrote}", f"at most {limit}")
    rounding = 0.0 if is_float32 else largest_diff(found, run)
    answers = zip(ours, run.answers, found.answers, strict=True)
    return Verification(diff, rounding, floor, tuple(answers))


def require_same_settings(processor: Processor, limits: MediaLimits, where: Path) -> None:
    """Check that a loaded processor has the limits of the run.

    Raises:
        UserError: it has not.
    """
    expected = (
        (processor.image_processor, image_settings(limits)),
        (processor.video_processor, video_settings(limits)),
    )
    for part, settings in expected:
        for name, value in settings.items():
            found = getattr(part, name, None)
            if found != value:
                raise UserError(where, f"its processor has {name} {found}", f"the run's {value}")


def _run_outputs(
    adapted: Molmo, processor: Processor, probes: dict[str, EncodedSample], stored: torch.dtype
) -> tuple[ModelOutputs, ModelOutputs]:
    """Return the outputs of the run, and those of its merged weights in the stored dtype."""
    run = run_probes(bare_model(adapted), processor, probes)
    return run, ModelOutputs(probe_logits(_merge_and_round(adapted, stored), probes), ())


def _require_same_inputs(
    name: str, ours: EncodedSample, theirs: EncodedSample, export: Path
) -> None:
    fields = ("input_ids", "patches", "pooling")
    if not all(np.array_equal(getattr(ours, key), getattr(theirs, key)) for key in fields):
        raise UserError(export, f"its processor encodes the {name} probe differently")


def _merge_and_round(adapted: torch.nn.Module, dtype: torch.dtype) -> Molmo:
    """Merge the run's model in place, by PEFT in float32, and round its weights to a dtype.

    This goes layer by layer, so that only one layer of a 16-bit model (`stored_16bit`) is in
    float32 at a time.
    """
    for layer in [m for m in adapted.modules() if isinstance(m, BaseTunerLayer)]:
        weight = layer.get_base_layer().weight
        stored = weight.dtype
        layer.float()
        layer.merge()
        if dtype != torch.float32:
            weight.data = weight.data.to(dtype).to(stored)
    merged = adapted.unload() if isinstance(adapted, PeftModel) else adapted
    if dtype != torch.float32:
        for parameter in merged.parameters():  # not the buffers: rotary frequencies stay exact
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)
    return bare_model(merged.eval())
