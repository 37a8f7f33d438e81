"""Proof that an export answers as the run did; a failed proof leaves no export behind.

Four probes (text, an image, two images, a clip; drawn from a fixed seed, so everyone can repeat
them) go through the run and through the freshly loaded export:

* the processor files give the same token ids and the same pixels under the run's caps on frames and
  crops, and carry these caps themselves;
* the logits agree to 1e-4 in float32. An export in a 16-bit type is compared with the run's weights
  merged by PEFT (other code than ours) and rounded to that type, and what the rounding itself costs
  is reported beside it;
* the greedy answers are listed side by side.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import MediaLimits
from molmo_tune.encoding.sample_encoder import encode_prompt
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs, image_inputs, video_inputs
from molmo_tune.errors import UserError
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.export.side_files import image_settings, video_settings
from molmo_tune.model.adapters import bare_model, merged_model
from molmo_tune.model.forward import hidden_states

MAX_LOGIT_DIFF = 1e-4
PROBE_SEED = 20261122
_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured.

    ``max_logit_diff``: export against run, over all probes and positions. ``rounding_diff``: what
    storing in 16 bits changes, 0 for float32. ``answers``: probe, run's answer, export's answer.
    """

    max_logit_diff: float
    rounding_diff: float
    answers: tuple[tuple[str, str, str], ...]

    @property
    def equal_answers(self) -> int:
        """Probes with the same greedy answer."""
        return sum(ours == theirs for _, ours, theirs in self.answers)


def verify_export(
    adapted: Any,
    exported: Any,
    processors: tuple[Any, Any],
    *,
    max_crops: int,
    stored: torch.dtype,
    where: Path,
) -> Proof:
    """Compare an export with the model it was made from.

    Args:
        adapted: from `load_adapter`, in float32, evaluation mode.
        exported: the export's model, in float32, evaluation mode.
        processors: the base's, and the export's.
        max_crops: the run's cap; the export's processor must have its own.
        stored: type that the export's weights lie in.
        where: the export, for messages.

    Raises:
        UserError: token ids, pixels or logits differ.
    """
    processor, exported_processor = processors
    run_model = bare_model(adapted)
    reference = run_model if stored == torch.float32 else _merged_and_rounded(adapted, stored)
    diff = rounding = 0.0
    answers = []
    exported_probes = make_probes(exported_processor)
    for name, ours in make_probes(processor, max_crops).items():
        theirs = exported_probes[name]
        _require_same_inputs(name, ours, theirs, where)
        logits = _logits(exported, theirs)
        diff = max(diff, float((logits - _logits(reference, ours)).abs().max()))
        rounding = max(rounding, float((logits - _logits(run_model, ours)).abs().max()))
        said = [
            generate_answers(model, processor, [probe], max_new_tokens=_NEW_TOKENS)[0].text
            for model, probe in ((run_model, ours), (exported, theirs))
        ]
        answers.append((name, said[0], said[1]))
    if not diff <= MAX_LOGIT_DIFF:
        raise UserError(where, f"logits differ by {diff:.2e}", f"at most {MAX_LOGIT_DIFF:.0e}")
    return Proof(diff, rounding if stored != torch.float32 else 0.0, tuple(answers))


def require_same_settings(processor: Any, limits: MediaLimits, where: Path) -> None:
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


def make_probes(processor: Any, max_crops: int | None = None) -> dict[str, EncodedSample]:
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
def _logits(model: Any, probe: EncodedSample) -> torch.Tensor:
    batch = collate([probe], pad_id=0)
    logits: torch.Tensor = model.lm_head(hidden_states(model, batch)).float()
    return logits


def _merged_and_rounded(adapted: Any, dtype: torch.dtype) -> Any:
    merged = merged_model(copy.deepcopy(adapted))
    for parameter in merged.parameters():  # not the buffers: rotary frequencies stay exact
        parameter.data = parameter.data.to(dtype).float()
    return merged.eval()
