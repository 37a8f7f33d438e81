"""Proof that an export answers as the run did; a failed proof leaves no export behind.

Four probes (text, an image, two images, a clip; drawn from a fixed seed, so everyone can repeat
them) go through the run and through the freshly loaded export:

* the processor files give the same token ids and the same pixels under the run's caps on frames and
  crops, and carry these caps themselves;
* the logits agree to 1e-4 in float32. Adding B·A·x to W·x and multiplying (W + B·A) by x round
  differently, and with adapters in all towers that alone can come to 1.5e-4: where PEFT's own merge
  in float32 (other code than ours) is so far from the run, we may be as far, and it is reported;
* an export in a 16-bit type is compared with the run's weights merged by PEFT and rounded to that
  type, to 1e-4, and what the rounding itself costs is reported beside it;
* the greedy answers are listed side by side.
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

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import MediaLimits
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sample_encoder import encode_prompt
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs, image_inputs, video_inputs
from molmo_tune.errors import UserError
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.export.files.config_files import image_settings, video_settings
from molmo_tune.model.adapters import bare_model
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.molmo import Molmo

MAX_LOGIT_DIFF = 1e-4
_AS_FAR, _MAX_FLOOR = 1.2, 1e-3
PROBE_SEED = 20261122
_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured.

    ``max_logit_diff``: export against run, over all probes and positions. ``rounding_diff``: what
    storing in 16 bits changes, 0 for float32. ``merge_floor``: PEFT's own float32 merge against the
    run, 0 for 16 bits. ``answers``: probe, run's answer, export's answer.
    """

    max_logit_diff: float
    rounding_diff: float
    merge_floor: float
    answers: tuple[tuple[str, str, str], ...]

    @property
    def equal_answers(self) -> int:
        """Probes with the same greedy answer."""
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
    """Compare an export with the model it was made from; one model is in memory at a time.

    Args:
        load_run: loads what `load_adapter` returns, computing in float32, in evaluation mode.
        load_export: loads the export's model, the same way.
        processors: the base's, and the export's.
        max_crops: the run's cap; the export's processor must have its own.
        stored: type that the export's weights lie in.
        where: the export, for messages.

    Raises:
        UserError: token ids, pixels or logits differ.
    """
    processor, exported_processor = processors
    ours, theirs = make_probes(processor, max_crops), make_probes(exported_processor)
    for name, probe in ours.items():
        _require_same_inputs(name, probe, theirs[name], where)
    run, merged = _run_says(load_run(), processor, ours, stored)
    gc.collect()  # the run's model, before the next is loaded
    found = run_probes(load_export(), processor, theirs)
    is_wide = stored == torch.float32
    diff = largest_diff(found, run if is_wide else merged)
    floor = largest_diff(merged, run) if is_wide else 0.0
    allowed = max(MAX_LOGIT_DIFF, min(_AS_FAR * floor, _MAX_FLOOR))
    if not diff <= allowed:
        raise UserError(where, f"logits differ by {diff:.2e}", f"at most {allowed:.1e}")
    rounding = 0.0 if is_wide else largest_diff(found, run)
    answers = zip(ours, run.answers, found.answers, strict=True)
    return Verification(diff, rounding, floor, tuple(answers))


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """What a model makes of all probes: logits ``(L, vocabulary)`` of each, greedy answers."""

    logits: tuple[torch.Tensor, ...]
    answers: tuple[str, ...]


def run_probes(
    model: Molmo, processor: Processor, probes: dict[str, EncodedSample]
) -> ModelOutputs:
    """Put the probes to a bare model; the answers are generated in one batch."""
    said = generate_answers(model, processor, list(probes.values()), max_new_tokens=_NEW_TOKENS)
    return ModelOutputs(_logits(model, probes), tuple(answer.text for answer in said))


def largest_diff(found: ModelOutputs, wanted: ModelOutputs) -> float:
    """Over all probes, positions and tokens; NaN where there is one."""
    pairs = zip(found.logits, wanted.logits, strict=True)
    return float(torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs]).max())


def _run_says(
    adapted: Molmo, processor: Processor, probes: dict[str, EncodedSample], stored: torch.dtype
) -> tuple[ModelOutputs, ModelOutputs]:
    """What the run says, and what it would say with its merged weights stored in this type."""
    run = run_probes(bare_model(adapted), processor, probes)
    return run, ModelOutputs(_logits(_merge_and_round(adapted, stored), probes), ())


def require_same_settings(processor: Processor, limits: MediaLimits, where: Path) -> None:
    """Check that a processor, as loaded, carries the run's caps.

    Raises:
        UserError: it does not.
    """
    wanted = (
        (processor.image_processor, image_settings(limits)),
        (processor.video_processor, video_settings(limits)),
    )
    for part, settings in wanted:
        for name, value in settings.items():
            if getattr(part, name, None) != value:
                found = getattr(part, name, None)
                raise UserError(where, f"its processor has {name} {found}", f"the run's {value}")


def make_probes(processor: Processor, max_crops: int | None = None) -> dict[str, EncodedSample]:
    """Prompts on drawn pictures: text, image, two images, video.

    Args:
        processor: of a checkpoint.
        max_crops: cap on an image's crops; the processor's own when None.
    """
    rng = np.random.default_rng(PROBE_SEED)
    tall = rng.integers(0, 256, (90, 60, 3), np.uint8)
    wide = rng.integers(0, 256, (70, 130, 3), np.uint8)
    frames = rng.integers(0, 256, (4, 60, 80, 3), np.uint8)
    vision: dict[str, VisionInputs] = {
        "text": NO_VISION,
        "image": image_inputs(processor, [wide], max_crops),
        "two images": image_inputs(processor, [tall, wide], max_crops),
        "video": video_inputs(processor, frames, [0.0, 0.5, 1.0, 1.4]),
    }
    question = "Point to the object."
    return {
        name: encode_prompt(processor, name, [question], inputs) for name, inputs in vision.items()
    }


def _require_same_inputs(
    name: str, ours: EncodedSample, theirs: EncodedSample, export: Path
) -> None:
    same = np.array_equal(ours.input_ids, theirs.input_ids) and np.array_equal(
        ours.patches, theirs.patches
    )
    if not same or not np.array_equal(ours.pooling, theirs.pooling):
        raise UserError(export, f"its processor reads the {name} probe differently")


@torch.no_grad()
def _logits(model: Molmo, probes: dict[str, EncodedSample]) -> tuple[torch.Tensor, ...]:
    batches = (collate([probe], pad_id=0) for probe in probes.values())
    return tuple(model.lm_head(hidden_states(model, batch))[0].float() for batch in batches)


def _merge_and_round(adapted: torch.nn.Module, dtype: torch.dtype) -> Molmo:
    """The run's model merged by PEFT in float32, its weights then rounded; changed in place.

    Layer by layer, so that weights at rest in 16 bits (`at_rest`) are wide one layer at a time.
    """
    for layer in [m for m in adapted.modules() if isinstance(m, BaseTunerLayer)]:
        weight = layer.get_base_layer().weight
        at_rest = weight.dtype
        layer.float()
        layer.merge()
        if dtype != torch.float32:
            weight.data = weight.data.to(dtype).to(at_rest)
    merged = adapted.unload() if isinstance(adapted, PeftModel) else adapted
    if dtype != torch.float32:
        for parameter in merged.parameters():  # not the buffers: rotary frequencies stay exact
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)
    return bare_model(merged.eval())
