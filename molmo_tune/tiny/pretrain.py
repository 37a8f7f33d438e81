"""Pre-trains the tiny base from nothing: `python -m molmo_tune.tiny.pretrain --out FOLDER`.

The base learns to point in frames, images and clips of coloured shapes (`shapes`), by the same
token stream, attention, vision path and loss that fine-tuning uses. Four things make it work at
this size, all measured: eyes that see before the decoder learns
(`vision_pretraining`); fresh weights of deviation 1/√fan-in; a curriculum from one object in one
frame to four in five (with three objects from the start nothing is learnt), entered stage by stage
as the error falls; and loss weights that favour the leading digits of a coordinate, because the
trailing ones are noise until the leading ones are right.

What it does not do: anything the demo needs at run time. The weights in `base/` were made by these
stages in several sittings (`--first-stage`), before the colours' words became the head of their
colours in stage 0. They point at single objects (median error 0.02 of the side) but choose among
several at random (probably the eyes forgot colours while all weights trained on). Next: keep the
eyes frozen, or their heads in the loss, through the later stages.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import Batch, EncodedSample
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_prompt
from molmo_tune.encoding.vision_inputs import VisionInputs, image_inputs, video_inputs
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.export.hub_layout import save_hub_weights
from molmo_tune.grounding.text import format_image_points, format_video_points, parse_points
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_processor
from molmo_tune.model.loss import loss_sums
from molmo_tune.tiny.checkpoint import SIDE, fresh_model, write_files
from molmo_tune.tiny.shapes import Thing, draw_clip
from molmo_tune.tiny.vision_pretraining import teach_vision

QUESTIONS = (
    "Point to the {}.",
    "Point at the {}.",
    "Find the {}.",
    "Locate the {}.",
    "Where is the {}?",
    "Show me the {}.",
    "Please point to the {}.",
    "Mark the {}.",
)
SECONDS_PER_FRAME = 0.5
LARGE_SIDE = 140  # an image of this side is tiled 2×2
DIGIT_WEIGHTS = (4.0, 1.5, 0.3)  # hundreds, tens and units of a thousandth
VISION_STEPS = 1000
PEAK_LR, WARMUP_STEPS = 1e-3, 100
CHECK_EVERY = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of batch: its share of the stage, how many things, frames and questions at most.

    With several questions about one scene, later answers can be found by elimination; what was
    asked for must be understood only where there is one.
    """

    share: float
    medium: str
    things: tuple[int, int]
    frames: tuple[int, int]
    batch: int
    questions: int = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """Batches to draw until the leading digits' loss falls below `advance`, or `steps` are done."""

    kinds: tuple[Kind, ...]
    steps: int
    advance: float = 0.0


STAGES = (
    Stage((Kind(1, "video", (1, 1), (1, 1), 32),), 4000, 1.0),
    Stage(
        (
            Kind(2, "video", (1, 2), (1, 1), 32),
            Kind(1, "image", (1, 2), (1, 1), 24),
            Kind(1, "video", (1, 1), (2, 3), 16),
        ),
        2000,
        1.0,
    ),
    Stage(
        (
            Kind(1, "video", (1, 3), (1, 1), 32),
            Kind(1, "image", (1, 3), (1, 1), 24),
            Kind(2, "video", (1, 2), (2, 4), 16),
        ),
        2500,
        0.95,
    ),
    Stage((Kind(1, "image", (1, 4), (1, 1), 24), Kind(3, "video", (1, 4), (3, 4), 16)), 1500),
    Stage(
        (
            Kind(4, "video", (2, 4), (1, 1), 32),
            Kind(1, "image", (1, 4), (1, 1), 24),
            Kind(5, "video", (1, 4), (3, 4), 16),
        ),
        1600,
    ),
)


def make_sample(
    processor: Any, rng: np.random.Generator, kind: Kind
) -> tuple[VisionInputs, list[str]]:
    """A drawn clip or image, and the questions and answers about its things in random order."""
    num_things = int(rng.integers(kind.things[0], kind.things[1] + 1))
    if kind.medium == "image":
        side = LARGE_SIDE if rng.random() < 0.15 else SIDE
        frames, things = draw_clip(rng, num_frames=1, num_things=num_things, side=side)
        vision = image_inputs(processor, frames)
    else:
        num_frames = int(rng.integers(kind.frames[0], kind.frames[1] + 1))
        frames, things = draw_clip(rng, num_frames=num_frames, num_things=num_things, side=SIDE)
        times = [SECONDS_PER_FRAME * k for k in range(num_frames)]
        vision = video_inputs(processor, np.stack(frames), times)
    messages: list[str] = []
    for place in rng.permutation(len(things))[: kind.questions]:
        thing = things[place]
        messages.append(str(rng.choice(QUESTIONS)).format(thing.name))
        messages.append(_answer(thing, kind.medium))
    return vision, messages


def _answer(thing: Thing, medium: str) -> str:
    xy = thing.xy(thing.first_frame)
    unit = (1.0, 1.0)
    if medium == "image":
        return format_image_points([xy], size_wh=unit, label=thing.name)
    first_s = SECONDS_PER_FRAME * thing.first_frame
    return format_video_points([(first_s, [xy])], size_wh=unit, label=thing.name)


class ShapeBatches(IterableDataset[Batch]):
    """Batches of one stage; batch k of a seed is always the same."""

    def __init__(self, processor: Any, stage: Stage, seed: tuple[int, int]) -> None:
        self._processor, self._stage, self._seed = processor, stage, seed
        digits = processor.tokenizer.convert_tokens_to_ids(list("0123456789"))
        self._digits = np.array(digits)

    def __iter__(self) -> Iterator[Batch]:
        shares = np.array([kind.share for kind in self._stage.kinds])
        for step in range(self._stage.steps):
            rng = np.random.default_rng([*self._seed, step])
            kind = self._stage.kinds[rng.choice(len(shares), p=shares / shares.sum())]
            yield collate([self._encoded(rng, kind) for _ in range(kind.batch)], pad_id=0)

    def _encoded(self, rng: np.random.Generator, kind: Kind) -> EncodedSample:
        vision, messages = make_sample(self._processor, rng, kind)
        sample = encode_conversation(self._processor, "", messages, vision)
        weights = sample.loss_weights.copy()
        for start in _coordinate_starts(sample, self._digits):
            weights[start : start + 3] = DIGIT_WEIGHTS
        return replace(sample, loss_weights=weights)


def _coordinate_starts(sample: EncodedSample, digits: np.ndarray[Any, Any]) -> list[int]:
    """Where a run of exactly three trained digits begins: a coordinate below 1000."""
    is_digit = np.isin(sample.target_ids, digits) & (sample.loss_weights > 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_digit.astype(int), [0]])))
    return [int(a) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a == 3]


def pretrain(out: Path, *, seed: int, first_stage: int = 0) -> None:
    """Train through all stages and write the checkpoint in hub layout.

    `first_stage` > 0 continues an interrupted pre-training with the weights that the stage before
    it left behind (the optimiser starts afresh).
    """
    write_files(out)
    processor = load_processor(str(out))
    model = fresh_model(seed).train()
    if first_stage:
        model.load_state_dict(torch.load(out / "pretraining.pt", weights_only=True))
    else:
        teach_vision(model, processor, steps=VISION_STEPS, seed=seed, lr=PEAK_LR, say=_say)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01
    )
    done = 0
    for number, stage in list(enumerate(STAGES))[first_stage:]:
        done += _train_stage(model, optimizer, processor, stage, (seed, number), done)
        for kind in (Kind(1, "image", (3, 3), (1, 1), 1), Kind(1, "video", (3, 3), (4, 4), 1)):
            _say(f"  {kind.medium}: {examine(model, processor, kind)}")
        torch.save(model.state_dict(), out / "pretraining.pt")
    save_hub_weights(model, out, dtype=torch.bfloat16)
    (out / "pretraining.pt").unlink()


def _train_stage(
    model: Any,
    optimizer: torch.optim.Optimizer,
    processor: Any,
    stage: Stage,
    seed: tuple[int, int],
    done: int,
) -> int:
    """Steps taken. The last stage lets the rate fall to zero; the others hold it."""
    loader = DataLoader(
        ShapeBatches(processor, stage, seed), batch_size=None, num_workers=1, prefetch_factor=8
    )
    started, losses = time.perf_counter(), []
    for step, batch in enumerate(loader, start=1):
        share = min(1.0, (done + step) / WARMUP_STEPS)
        if stage is STAGES[-1]:
            share *= 0.5 * (1 + math.cos(math.pi * step / stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * share
        losses.append(_step(model, optimizer, batch))
        if step % CHECK_EVERY == 0:
            leading = float(np.mean([loss[1] for loss in losses]))
            mean = float(np.mean([loss[0] for loss in losses]))
            spent = time.perf_counter() - started
            _say(
                f"{seed[1]} {step:5d} {spent:6.0f} s  loss {mean:.4f}  leading digit {leading:.3f}"
            )
            losses = []
            if leading < stage.advance:
                return step
    return stage.steps


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[float, float]:
    """One update; returns the mean loss and the loss of the leading digits."""
    hidden = hidden_states(model, batch)
    sums = loss_sums(
        hidden, model.lm_head.weight, batch.target_ids, batch.loss_weights, z_loss=1e-4
    )
    (sums.total / sums.weight).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        leading = batch.loss_weights == DIGIT_WEIGHTS[0]
        logits = model.lm_head(hidden[leading])
        loss = torch.nn.functional.cross_entropy(logits, batch.target_ids[leading])
    return float(sums.cross_entropy / sums.weight), float(loss)


@torch.no_grad()
def examine(model: Any, processor: Any, kind: Kind, num_samples: int = 64) -> str:
    """Held-out answers in words: right frame, median error, share within 8 % of the side."""
    model.eval()
    rng = np.random.default_rng(987654321)
    prompts, truths = [], []
    for _ in range(num_samples):
        vision, messages = make_sample(processor, rng, kind)
        prompts.append(encode_prompt(processor, "", messages[:1], vision))
        truths.append(messages[1])
    answers = generate_answers(model, processor, prompts, max_new_tokens=48)
    errors = []
    for answer, truth in zip(answers, truths, strict=True):
        said = parse_points(answer.text, size_wh=(1, 1))
        true = parse_points(truth, size_wh=(1, 1))[0]
        right = len(said) == 1 and said[0].frame_id == true.frame_id
        errors.append(math.dist(said[0].xy_px, true.xy_px) if right else math.inf)
    model.train()
    found = np.isfinite(errors)
    return (
        f"right frame {found.mean():.2f}, median error {np.median(errors):.3f}, "
        f"within 0.08 {np.mean(np.array(errors) < 0.08):.2f}, e.g. {answers[0].text}"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Pre-train the tiny Molmo 2 (one to two hours).")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-stage", type=int, default=0, help="continue with this stage")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pretrain(arguments.out, seed=arguments.seed, first_stage=arguments.first_stage)


if __name__ == "__main__":
    main()
