"""What training will cost and what it will see: tokens, frames, steps, packs.

Lengths are exact and known without decoding. The figures answer what users ask first: how long are
my sequences, how many frames would fit into them, is the sampling thinner than I think, and how
many steps are an epoch.
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

MANY_EPOCHS = 50
_SLACK_S = 0.01


def about_budget(
    recipe: Recipe, train: Sequence[SourceData], processor: Processor
) -> Iterator[Finding]:
    """Notes on lengths, frames and steps, and a warning where less is seen than was asked for."""
    items = [item for data in train for item in data.plan.items]
    if not items:
        return
    lengths = np.array([item.num_tokens for item in items])
    middle, high = (int(np.percentile(lengths, share)) for share in (50, 95))
    text = f"tokens of a sequence: half have up to {middle}, 95 % up to {high}, the longest"
    yield Finding("note", "data.max_tokens", f"{text} {lengths.max()} of {recipe.data.max_tokens}")
    clips = list({i.sample.media.paths: i for i in items if i.sampled is not None}.values())
    if clips:
        yield _frames_that_fit(recipe, clips, processor)
        yield from _thinned(recipe, clips)
    yield from _steps(recipe, items)


def _frames_that_fit(recipe: Recipe, clips: Sequence[Item], processor: Processor) -> Finding:
    """From two made-up clips: what a frame costs; from the wordiest clip: what is left for them."""
    limits = limits_of(recipe)
    one, many = (num_vision_tokens(_of_frames(clips[0], n), processor, limits) for n in (1, 101))
    per_frame = (many - one) / 100
    words = max(item.num_tokens - num_vision_tokens(item, processor, limits) for item in clips)
    fit = max(0, math.floor((recipe.data.max_tokens - words) / per_frame))
    text = f"beside the longest questions of one video ({words} tokens) {fit} frames fit into a"
    text += f" sequence, {recipe.video.max_frames} are taken"
    return Finding("note", "video.max_frames", text)


def _of_frames(clip: Item, num_frames: int) -> Item:
    times = tuple(number / 2 for number in range(num_frames))
    sampled = SampledTimes(times, tuple(range(num_frames)), (1, 1), num_frames / 2)
    return replace(clip, sampled=sampled)


def _thinned(recipe: Recipe, clips: Sequence[Item]) -> Iterator[Finding]:
    video = recipe.video
    covered_s = (video.max_frames - 1) / video.max_fps  # the last frame is always seen
    thin = []
    for clip in clips:
        assert clip.sampled is not None
        if clip.sampled.duration_s > covered_s + _SLACK_S:
            rate = (len(clip.sampled.times_s) - 1) / clip.sampled.duration_s
            thin.append((rate, f"{clip.sample.id} ({clip.sampled.duration_s:.0f} s)"))
    if thin:
        named = examples([name for _, name in sorted(thin)])
        text = (
            f"{len(thin)} of {len(clips)} videos are longer than {video.max_frames} frames at "
            f"{video.max_fps:g} per second and are seen at down to {min(thin)[0]:.2f}: {named}"
        )
        yield Finding("warning", "video.max_frames", text, len(thin))


def _steps(recipe: Recipe, items: Sequence[Item]) -> Iterator[Finding]:
    per_step = recipe.trainer.batch_size * recipe.trainer.accumulate_grad_batches
    figures = measure_packing(items, recipe)
    rows = len(items) if figures is None else figures.packs_per_epoch
    what = "sequences" if figures is None else "packs"
    epochs = recipe.trainer.max_steps * per_step / rows
    shares = source_shares(items, recipe)
    seen = epochs * max((one.repeats for one in shares), default=1.0)
    yield Finding(
        "note",
        "trainer",
        f"{rows:.0f} {what}, {per_step} per step: an epoch is {math.ceil(rows / per_step)} steps, "
        f"max_steps = {recipe.trainer.max_steps} is {epochs:.1f} epochs",
    )
    for one in shares:
        text = f"{one.source.path}: {one.share:.1%} of samples; "
        text += f"each comes {one.repeats:.2f} times per epoch"
        yield Finding("note", f"data.train.{one.number}.weight", text)
    if seen > MANY_EPOCHS:
        text = f"every sequence is seen {seen:.0f} times and may be learned by heart: more labels"
        yield Finding("warning", "trainer.max_steps", f"{text}, or fewer steps", len(items))
    if figures is not None:
        yield Finding("note", "data.packing", str(figures))
