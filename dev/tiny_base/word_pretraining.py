"""Stage 1 of the tiny base: words find what they name.

With several objects in view, the decoder must gather the question's word, find the token that looks
like it and copy its place to the answer. Learned all at once from answers alone, that did not come
in thousands of steps: the base pointed at any object. Learned one hop at a time it comes in a few
hundred (both measured). So here the lower half of the decoder reads questions about scenes, and a
throw-away head on the last token of each *color word* must tell the frame and the place of the
thing so colored. Whoever answers later finds the place written on the word.

The eyes keep learning beside it with their own heads, lest they forget (`vision_pretraining`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from dev.tiny_base.asking import SECONDS_PER_FRAME, ask_about
from dev.tiny_base.vision_pretraining import (
    NOTHING,
    Eyes,
    cell_truth,
    inside,
    leading_digits,
)
from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import Batch
from molmo_tune.encoding.sample_encoder import encode_tree
from molmo_tune.encoding.vision_inputs import video_inputs
from molmo_tune.model.forward import decode
from molmo_tune.model.vision_encoding import encode_vision
from molmo_tune.tiny.checkpoint import SIDE
from molmo_tune.tiny.shapes import Thing, draw_clip

LAYERS = 2  # of four: the upper ones are left to read what the lower ones found
FRAMES_PER_BATCH = 40
MOST_FRAMES = 4
# What a word must tell: its thing's first frame, hundreds and tens of x and y there.
FINDINGS = {"frame": MOST_FRAMES, "x1": 10, "x2": 10, "y1": 10, "y2": 10}
WEIGHTS = {"frame": 2.0, "x1": 2.0, "x2": 0.6, "y1": 2.0, "y2": 0.6}

Questioned = tuple[Batch, torch.Tensor, torch.Tensor]


class Questions(IterableDataset[Questioned]):
    """Batches of scenes with a question about each thing.

    Yields the batch, the truth of every cell ``(T, …)`` and of every color word
    ``(B, L, findings)``, `NOTHING` at other tokens.
    """

    def __init__(self, processor: Any, steps: int, seed: int, frames: tuple[int, int]) -> None:
        self._processor, self._steps, self._seed = processor, steps, seed
        self._frames = frames

    def __iter__(self) -> Iterator[Questioned]:
        pieces = _Pieces(self._processor)
        for step in range(self._steps):
            rng = np.random.default_rng([self._seed, 1_000_033, step])
            num_frames = int(rng.integers(self._frames[0], self._frames[1] + 1))
            encoded, cells, findings = [], [], []
            for _ in range(max(1, FRAMES_PER_BATCH // num_frames)):
                frames, things = draw_clip(
                    rng, num_frames=num_frames, num_things=int(rng.integers(1, 5)), side=SIDE
                )
                times = [SECONDS_PER_FRAME * k for k in range(num_frames)]
                vision = video_inputs(self._processor, np.stack(frames), times)
                asked = [[ask_about(rng, thing), "."] for thing in things]
                sample = encode_tree(self._processor, "", asked, vision)
                encoded.append(sample)
                cells += [cell_truth(things, k) for k in range(num_frames)]
                findings.append(_findings(sample.input_ids, things, pieces))
            batch = collate(encoded, pad_id=0)
            length = batch.input_ids.shape[1]
            padded = [
                np.pad(f, ((0, length - len(f)), (0, 0)), constant_values=-1) for f in findings
            ]
            yield (
                batch,
                torch.from_numpy(np.concatenate(cells)),
                torch.from_numpy(np.stack(padded)),
            )


class _Pieces(dict[str, list[int]]):
    """Token ids of a word as it stands in a question, after a blank."""

    def __init__(self, processor: Any) -> None:
        self._tokenizer = processor.tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(f" {word}", add_special_tokens=False)
        self[word] = ids
        return ids


def _findings(ids: NDArray[np.int64], things: list[Thing], pieces: _Pieces) -> NDArray[np.int64]:
    found = np.full((len(ids), len(FINDINGS)), NOTHING)
    for thing in things:
        x, y = inside(thing.xy(thing.first_frame))
        told = (thing.first_frame, *leading_digits(x), *leading_digits(y))
        found[_ends(ids, pieces[thing.word])] = told
    return found


def _ends(ids: NDArray[np.int64], word: list[int]) -> NDArray[np.bool_]:
    """Where a word's last token stands."""
    ends = np.zeros(len(ids), bool)
    if len(word) <= len(ids):
        windows = np.lib.stride_tricks.sliding_window_view(ids, len(word))
        ends[len(word) - 1 :] = (windows == word).all(axis=1)
    return ends


def teach_words(
    model: Any,
    processor: Any,
    *,
    steps: int,
    frames: tuple[int, int],
    seed: int,
    lr: float,
    say: Callable[[str], None],
) -> None:
    """Train everything below the upper layers of `model` in place.

    Args:
        frames: least and most frames of a scene.
    """
    torch.manual_seed(seed)
    eyes = Eyes(model, processor)
    finder = nn.Linear(model.config.text_config.hidden_size, sum(FINDINGS.values()))
    learning = [p for name, p in model.named_parameters() if _takes_part(name)]
    heads = [*eyes.parameters(), *finder.parameters()]
    optimizer = torch.optim.AdamW([*learning, *heads], lr=lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    questions = Questions(processor, steps, seed, frames)
    loader = DataLoader(questions, batch_size=None, num_workers=1, prefetch_factor=4)
    told = []
    for step, (batch, cells, findings) in enumerate(loader, start=1):
        features = encode_vision(model.model, batch.patches, batch.pooling, chunk=FRAMES_PER_BATCH)
        hidden = _lower_half(model, batch, features)
        seen, _ = eyes.loss(features, cells)
        found, parts = _finding_loss(finder, hidden, findings)
        (seen + found).backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        told.append(parts)
        if step % 100 == 0:
            means = {name: np.mean([parts[name] for parts in told]) for name in FINDINGS}
            line = "  ".join(f"{name} {mean:.2f}" for name, mean in means.items())
            say(f"words {step:5d}  {line}")
            told = []


def _takes_part(name: str) -> bool:
    if "lm_head" in name or "embed_tokens" in name:
        return False
    above = [f"language_model.layers.{n}." for n in range(LAYERS, 10)]
    return not any(part in name for part in above)


def _lower_half(model: Any, batch: Batch, features: torch.Tensor) -> torch.Tensor:
    decoder = model.model.language_model
    whole = decoder.layers
    decoder.layers = whole[:LAYERS]
    try:
        return decode(model, batch, features)
    finally:
        decoder.layers = whole


def _finding_loss(
    finder: nn.Linear, hidden: torch.Tensor, findings: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    is_word = findings[..., 0] != NOTHING
    logits = finder(hidden[is_word]).split(list(FINDINGS.values()), dim=-1)
    loss, parts = hidden.new_zeros(()), {}
    for place, (name, told) in enumerate(zip(FINDINGS, logits, strict=True)):
        part = F.cross_entropy(told, findings[is_word][:, place])
        parts[name] = float(part.detach())
        loss = loss + WEIGHTS[name] * part
    return loss, parts
