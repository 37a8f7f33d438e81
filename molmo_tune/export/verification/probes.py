"""Four prompts that show whether two models are the same: text, image, two images, video.

Images and frames are random, from a fixed seed, so anyone can repeat a verification.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sample_encoder import encode_prompt
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs, image_inputs, video_inputs
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.molmo import Molmo

PROBE_SEED = 20261122
_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """Logits ``(L, vocabulary)`` and greedy answer of a model for each probe."""

    logits: tuple[torch.Tensor, ...]
    answers: tuple[str, ...]


def make_probes(processor: Processor, max_crops: int | None = None) -> dict[str, EncodedSample]:
    """Return the encoded probes by name.

    Args:
        processor: of a checkpoint.
        max_crops: maximum crops of an image; None for the processor's own.
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


def run_probes(
    model: Molmo, processor: Processor, probes: dict[str, EncodedSample]
) -> ModelOutputs:
    """Run a bare model on all probes; the answers are generated in one batch."""
    answers = generate_answers(model, processor, list(probes.values()), max_new_tokens=_NEW_TOKENS)
    return ModelOutputs(probe_logits(model, probes), tuple(answer.text for answer in answers))


@torch.no_grad()
def probe_logits(model: Molmo, probes: dict[str, EncodedSample]) -> tuple[torch.Tensor, ...]:
    """Return the logits ``(L, vocabulary)`` of each probe, in float32."""
    batches = (collate([probe], pad_id=0) for probe in probes.values())
    return tuple(model.lm_head(hidden_states(model, batch))[0].float() for batch in batches)


def largest_diff(found: ModelOutputs, expected: ModelOutputs) -> float:
    """Return the largest logit difference over probes, positions and tokens; NaN if any is NaN."""
    pairs = zip(found.logits, expected.logits, strict=True)
    return float(torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs]).max())


def mean_diff(found: ModelOutputs, expected: ModelOutputs) -> float:
    """Return the mean logit difference, averaged over probes."""
    pairs = zip(found.logits, expected.logits, strict=True)
    return float(torch.stack([(ours - theirs).abs().mean() for ours, theirs in pairs]).mean())
