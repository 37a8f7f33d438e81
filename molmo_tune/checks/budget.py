"""The budget of a training run: tokens, frames, steps and packs.

Sequence lengths are exact and need no decoding. The figures answer common questions: How long are
my sequences? How many frames fit? Is the frame rate lower than I expect? How many steps are an
epoch?
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from molmo_tune.checks.finding import Finding, examples
from molmo_tune.encoding.items import Item, num_vision_tokens
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import SourceData, limits_of, measure_packing, source_shares
from molmo_tune.media.clip import SampledTimes
from molmo_tune.recipe.sections import Recipe
from molmo_tune.units import count, frame_rate, seconds

MANY_EPOCHS = 50
_SLACK_S = 0.01


def check_budget(
    recipe: Recipe, train: Sequence[SourceData], processor: Processor
) -> Iterator[Finding]:
    """Yield notes on lengths, frames and steps, and warnings on sparse sampling and many epochs."""
    items = [item for data in train for item in data.plan.items]
    if not items:
        return
    lengths = np.array([item.num_tokens for item in items])
    median, high = (int(np.percentile(lengths, percentile)) for percentile in (50, 95))
    text = (
        f"tokens per sequence: median {median:,}, 95th percentile {high:,}, "
        f"max {lengths.max():,} of {recipe.data.max_tokens:,}"
    )
    yield Finding("note", "data.max_tokens", text)
    clips = list({i.sample.media.paths: i for i in items if i.sampled is not None}.values())
    if clips:
        yield _frames_that_fit(recipe, clips, processor)
        yield from _sparse(recipe, clips)
    yield from _steps(recipe, items)


def _frames_that_fit(recipe: Recipe, clips: Sequence[Item], processor: Processor) -> Finding:
    """Return how many frames fit next to the questions of the clip with the longest ones.

    Two made-up clips of 1 and 101 frames give the tokens per frame.
    """
    limits = limits_of(recipe)
    one, many = (num_vision_tokens(_of_frames(clips[0], n), processor, limits) for n in (1, 101))
    per_frame = (many - one) / 100
    text_tokens = max(i.num_tokens - num_vision_tokens(i, processor, limits) for i in clips)
    num_frames = max(0, math.floor((recipe.data.max_tokens - text_tokens) / per_frame))
    text = (
        f"with the longest questions ({count(text_tokens, 'token')}), "
        f"{count(num_frames, 'frame')} fit in a sequence; "
        f"video.max_frames is {recipe.video.max_frames}"
    )
    return Finding("note", "video.max_frames", text)


def _of_frames(clip: Item, num_frames: int) -> Item:
    times = tuple(number / 2 for number in range(num_frames))
    sampled = SampledTimes(times, tuple(range(num_frames)), (1, 1), num_frames / 2)
    return replace(clip, sampled=sampled)


def _sparse(recipe: Recipe, clips: Sequence[Item]) -> Iterator[Finding]:
    video = recipe.video
    covered_s = (video.max_frames - 1) / video.max_fps  # the last frame is always sampled
    sparse = []
    for clip in clips:
        assert clip.sampled is not None
        if clip.sampled.duration_s > covered_s + _SLACK_S:
            rate = (len(clip.sampled.times_s) - 1) / clip.sampled.duration_s
            sparse.append((rate, f"{clip.sample.id} ({seconds(clip.sampled.duration_s, 0)})"))
    if sparse:
        longest = examples([name for _, name in sorted(sparse)])
        text = (
            f"{len(sparse)} of {count(len(clips), 'video')} too long for "
            f"{count(video.max_frames, 'frame')} at {frame_rate(video.max_fps)}, sampled at as "
            f"little as {min(sparse)[0]:.2f} fps: {longest}"
        )
        yield Finding("warning", "video.max_frames", text, len(sparse))


def _steps(recipe: Recipe, items: Sequence[Item]) -> Iterator[Finding]:
    per_step = recipe.trainer.batch_size * recipe.trainer.accumulate_grad_batches
    figures = measure_packing(items, recipe)
    rows = len(items) if figures is None else figures.packs_per_epoch
    unit = "sequence" if figures is None else "pack"
    epochs = recipe.trainer.max_steps * per_step / rows
    shares = source_shares(items, recipe)
    seen = epochs * max((one.repeats for one in shares), default=1.0)
    yield Finding(
        "note",
        "trainer",
        f"{count(round(rows), unit)}, {per_step} per step: an epoch is "
        f"{count(math.ceil(rows / per_step), 'step')}, "
        f"max_steps = {recipe.trainer.max_steps} is {epochs:.1f} epochs",
    )
    for one in shares:
        text = f"{one.source.path}: {one.share:.1%} of samples; "
        text += f"each comes {one.repeats:.2f} times per epoch"
        yield Finding("note", f"data.train.{one.number}.weight", text)
    if seen > MANY_EPOCHS:
        text = f"{seen:.0f} epochs over each sequence risk overfitting; add labels or train less"
        yield Finding("warning", "trainer.max_steps", text, len(items))
    if figures is not None:
        yield Finding("note", "data.packing", str(figures))
