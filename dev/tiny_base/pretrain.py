"""Pre-train the tiny base from scratch: `python -m dev.tiny_base.pretrain --out FOLDER`.

The base learns to point in frames, images and clips of colored shapes (`shapes`), with the token
stream, attention, vision code and loss of fine-tuning. At this size, it takes all of the following
(all measured):

* a vision tower trained before the decoder (`vision_pretraining`)
* words that find their objects before the model learns to answer (`word_pretraining`)
* fresh weights with a standard deviation of 1/√fan-in, and queries that start equal to their keys
  (`checkpoint.fresh_model`)
* questions as branches of a message tree, so that elimination answers none of them
* loss weights that favor the leading digits of a coordinate, because the trailing digits are noise
  until the leading ones are right

The demo does not use this code. It made the weights in `base/` in several runs: vision, words,
single frames, clips, then words on clips and clips again, because on single frames alone the words
had forgotten *when*. The last run was 600 steps of words and 1,500 of clips at a learning rate of
6e-4, with the spots and second names that `shapes` has had since; at equal steps, it raised the F1
of the demo's fine-tune from 0.76 to 0.91. On held-out clips of four frames with three objects (half
of them spotted or called by a second name), the base names the right frame in 75% of cases, and is
then off by 0.011 of the side in the median.

Limitations: the stages below omit the detours and have not been run from start to end.
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

from dev.tiny_base.asking import SECONDS_PER_FRAME, ask_about, image_answer, video_answer
from dev.tiny_base.vision_pretraining import pretrain_vision
from dev.tiny_base.word_pretraining import pretrain_words
from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import Batch, EncodedSample
from molmo_tune.encoding.sample_encoder import encode_prompt, encode_tree
from molmo_tune.encoding.vision_inputs import VisionInputs, image_inputs, video_inputs
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.export.layouts.hub_layout import save_hub_weights
from molmo_tune.grounding.text import parse_points
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_processor
from molmo_tune.model.loss import loss_sums
from molmo_tune.tiny.checkpoint import SIDE, fresh_model, write_files
from molmo_tune.tiny.shapes import draw_clip

LARGE_SIDE = 140  # an image of this side is tiled 2×2
DIGIT_WEIGHTS = (4.0, 1.5, 0.3)  # hundreds, tens and units of a thousandth
TIME_WEIGHT = 3.0  # for the digits of a time, on which everything after them depends
WORDS_WEIGHT = 0.3  # for all other answer tokens
VISION_STEPS = 1000
WORD_STEPS = ((800, (1, 1)), (1200, (1, 4)))  # steps, and minimum and maximum frames
PEAK_LR, WARMUP_STEPS = 1e-3, 100
VISION_LR_FACTOR = 0.3  # for tower and connector, which are pre-trained already
CHECK_EVERY = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of batch: fraction of the stage, range of objects and frames, scenes per batch."""

    share: float
    media: str
    things: tuple[int, int]
    frames: tuple[int, int]
    batch: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Kinds of batches, and the number of steps."""

    kinds: tuple[Kind, ...]
    steps: int


# Clips of several frames from the start: on single frames alone, the words forget within 600 steps
# what they learned about *when* (measured: afterwards 59% of the times and 99% of the positions
# were right).
STAGES = (
    Stage(
        (
            Kind(1, "video", (1, 4), (1, 1), 12),
            Kind(1, "image", (1, 4), (1, 1), 10),
            Kind(4, "video", (1, 4), (2, 4), 9),
        ),
        3000,
    ),
)


def make_scene(
    processor: Any, rng: np.random.Generator, kind: Kind
) -> tuple[VisionInputs, list[tuple[str, str]]]:
    """Return a clip or image, and a question and answer per object, in random order."""
    num_things = int(rng.integers(kind.things[0], kind.things[1] + 1))
    if kind.media == "image":
        side = LARGE_SIDE if rng.random() < 0.15 else SIDE
        frames, things = draw_clip(rng, num_frames=1, num_things=num_things, side=side)
        vision, answer = image_inputs(processor, frames), image_answer
    else:
        num_frames = int(rng.integers(kind.frames[0], kind.frames[1] + 1))
        frames, things = draw_clip(rng, num_frames=num_frames, num_things=num_things, side=SIDE)
        times = [SECONDS_PER_FRAME * k for k in range(num_frames)]
        vision, answer = video_inputs(processor, np.stack(frames), times), video_answer
    order = rng.permutation(len(things))
    return vision, [(ask_about(rng, things[n]), answer(things[n])) for n in order]


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
        vision, dialogues = make_scene(self._processor, rng, kind)
        sample = encode_tree(self._processor, "", dialogues, vision)
        return replace(sample, loss_weights=_digit_weights(sample, self._digits))


def _digit_weights(
    sample: EncodedSample, digits: np.ndarray[Any, Any]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return loss weights; three digits in a row are a coordinate, single digits are a time."""
    weights = WORDS_WEIGHT * sample.loss_weights
    is_digit = np.isin(sample.target_ids, digits) & (sample.loss_weights > 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_digit.astype(int), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        weights[start:end] = DIGIT_WEIGHTS if end - start == 3 else TIME_WEIGHT
    return weights


def pretrain(out: Path, *, seed: int, first_stage: int = 0) -> None:
    """Train through all stages and write the checkpoint in the Hub layout.

    `first_stage` > 0 resumes an interrupted pre-training with the weights of the stage before it.
    Stage 0 is vision, 1 and 2 are words, then come the `STAGES`.
    """
    write_files(out)
    processor = load_processor(str(out))
    model = fresh_model(seed).train()
    if first_stage:
        model.load_state_dict(torch.load(out / "pretraining.pt", weights_only=True))
    for number in range(first_stage, 1 + len(WORD_STEPS) + len(STAGES)):
        _run_stage(model, processor, number, seed)
        torch.save(model.state_dict(), out / "pretraining.pt")
        if number > len(WORD_STEPS):
            for kind in (Kind(1, "image", (3, 3), (1, 1), 1), Kind(1, "video", (3, 3), (4, 4), 1)):
                _log(f"  {kind.media}: {examine(model, processor, kind)}")
    save_hub_weights(model, out, dtype=torch.bfloat16)
    (out / "pretraining.pt").unlink()


def _run_stage(model: Any, processor: Any, number: int, seed: int) -> None:
    if number == 0:
        pretrain_vision(model, processor, steps=VISION_STEPS, seed=seed, lr=PEAK_LR, log=_log)
    elif number <= len(WORD_STEPS):
        steps, frames = WORD_STEPS[number - 1]
        stage_seed = seed + number
        pretrain_words(
            model, processor, steps=steps, frames=frames, seed=stage_seed, lr=PEAK_LR, log=_log
        )
    else:
        stage = STAGES[number - 1 - len(WORD_STEPS)]
        _train_stage(model, processor, stage, (seed, number))


def _train_stage(model: Any, processor: Any, stage: Stage, seed: tuple[int, int]) -> None:
    """Train with warm-up, then a cosine schedule to zero."""
    optimizer = _optimizer(model)
    loader = DataLoader(
        ShapeBatches(processor, stage, seed), batch_size=None, num_workers=1, prefetch_factor=8
    )
    started, losses = time.perf_counter(), []
    for step, batch in enumerate(loader, start=1):
        lr = PEAK_LR * min(1.0, step / WARMUP_STEPS)
        lr *= 0.5 * (1 + math.cos(math.pi * step / stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        losses.append(_step(model, optimizer, batch))
        if step % CHECK_EVERY == 0:
            mean, leading = np.mean(losses, axis=0)
            spent = time.perf_counter() - started
            _log(
                f"{seed[1]} {step:5d} {spent:6.0f} s  loss {mean:.4f}  leading digit {leading:.3f}"
            )
            losses = []


def _optimizer(model: Any) -> torch.optim.Optimizer:
    vision = [
        *model.model.vision_tower.parameters(),
        *model.model.multi_modal_projector.parameters(),
    ]
    known = {id(parameter) for parameter in vision}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    groups = [{"params": rest, "factor": 1.0}, {"params": vision, "factor": VISION_LR_FACTOR}]
    return torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01)


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[float, float]:
    """Make one update; return the mean loss and the loss of the leading digits."""
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
    """Describe held-out answers: right frame, median error, fraction within 8% of the side."""
    model.eval()
    rng = np.random.default_rng(987654321)
    prompts, expected_answers = [], []
    for _ in range(num_samples):
        vision, dialogues = make_scene(processor, rng, kind)
        question, answer = dialogues[0]
        prompts.append(encode_prompt(processor, "", [question], vision))
        expected_answers.append(answer)
    answers = generate_answers(model, processor, prompts, max_new_tokens=48)
    errors = []
    for answer, expected in zip(answers, expected_answers, strict=True):
        points = parse_points(answer.text, size_wh=(1, 1))
        true = parse_points(expected, size_wh=(1, 1))[0]
        right = len(points) == 1 and points[0].frame_id == true.frame_id
        errors.append(math.dist(points[0].xy_px, true.xy_px) if right else math.inf)
    model.train()
    found = np.isfinite(errors)
    return (
        f"right frame {found.mean():.2f}, median error {np.median(errors):.3f}, "
        f"within 0.08 {np.mean(np.array(errors) < 0.08):.2f}, e.g. {answers[0].text}"
    )


def _log(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Pre-train the tiny Molmo 2 (about an hour).")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-stage", type=int, default=0, help="stage to resume with")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pretrain(arguments.out, seed=arguments.seed, first_stage=arguments.first_stage)


if __name__ == "__main__":
    main()
