"""Stage 1 of the tiny base: words learn to find the objects that they name.

With several objects in view, the decoder must read the word in the question, find the vision token
that resembles it, and copy that token's position to the answer. Trained on answers alone, the base
did not learn this in thousands of steps and pointed at any object; one hop at a time, it takes a
few hundred (both measured). So in this stage the lower half of the decoder reads questions about
scenes, and a temporary head on the last token of each *color word* predicts the frame and the
position of the object with that color. The answers learned later find the position in the word.

The vision heads continue to train the features (`vision_pretraining`), so that they are not
forgotten.
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
    VisionHeads,
    cell_targets,
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

LOWER_LAYERS = 2  # of four; the upper ones learn later to read what these find
FRAMES_PER_BATCH = 40
MAX_FRAMES = 4
# What a word predicts: the first frame of its object, and hundreds and tens of x and y there.
FINDINGS = {"frame": MAX_FRAMES, "x1": 10, "x2": 10, "y1": 10, "y2": 10}
WEIGHTS = {"frame": 2.0, "x1": 2.0, "x2": 0.6, "y1": 2.0, "y2": 0.6}

Questioned = tuple[Batch, torch.Tensor, torch.Tensor]


class Questions(IterableDataset[Questioned]):
    """Batches of scenes with a question about each object.

    Yields the batch, the targets of every cell ``(T, …)`` and of every color word
    ``(B, L, findings)``, with `NOTHING` at other tokens.
    """

    def __init__(self, processor: Any, steps: int, seed: int, frames: tuple[int, int]) -> None:
        self._processor, self._steps, self._seed = processor, steps, seed
        self._frames = frames

    def __iter__(self) -> Iterator[Questioned]:
        word_ids = _WordIds(self._processor)
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
                dialogues = [[ask_about(rng, thing), "."] for thing in things]
                sample = encode_tree(self._processor, "", dialogues, vision)
                encoded.append(sample)
                cells += [cell_targets(things, k) for k in range(num_frames)]
                findings.append(_findings(sample.input_ids, things, word_ids))
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


class _WordIds(dict[str, list[int]]):
    """Token ids of a word as it occurs in a question, after a space."""

    def __init__(self, processor: Any) -> None:
        self._tokenizer = processor.tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(f" {word}", add_special_tokens=False)
        self[word] = ids
        return ids


def _findings(ids: NDArray[np.int64], things: list[Thing], word_ids: _WordIds) -> NDArray[np.int64]:
    found = np.full((len(ids), len(FINDINGS)), NOTHING)
    for thing in things:
        x, y = inside(thing.xy(thing.first_frame))
        targets = (thing.first_frame, *leading_digits(x), *leading_digits(y))
        found[_ends(ids, word_ids[thing.word])] = targets
    return found


def _ends(ids: NDArray[np.int64], word: list[int]) -> NDArray[np.bool_]:
    """Return whether each token is the last one of the word."""
    ends = np.zeros(len(ids), bool)
    if len(word) <= len(ids):
        windows = np.lib.stride_tricks.sliding_window_view(ids, len(word))
        ends[len(word) - 1 :] = (windows == word).all(axis=1)
    return ends


def pretrain_words(
    model: Any,
    processor: Any,
    *,
    steps: int,
    frames: tuple[int, int],
    seed: int,
    lr: float,
    log: Callable[[str], None],
) -> None:
    """Train everything below the upper layers of `model` in place.

    Args:
        frames: minimum and maximum frames of a scene.
    """
    torch.manual_seed(seed)
    vision_heads = VisionHeads(model, processor)
    finder = nn.Linear(model.config.text_config.hidden_size, sum(FINDINGS.values()))
    trained = [p for name, p in model.named_parameters() if _is_trained(name)]
    heads = [*vision_heads.parameters(), *finder.parameters()]
    optimizer = torch.optim.AdamW([*trained, *heads], lr=lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    questions = Questions(processor, steps, seed, frames)
    loader = DataLoader(questions, batch_size=None, num_workers=1, prefetch_factor=4)
    recent = []
    for step, (batch, cells, findings) in enumerate(loader, start=1):
        features = encode_vision(model.model, batch.patches, batch.pooling, chunk=FRAMES_PER_BATCH)
        hidden = _lower_half(model, batch, features)
        vision_loss, _ = vision_heads.loss(features, cells)
        word_loss, parts = _finding_loss(finder, hidden, findings)
        (vision_loss + word_loss).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent.append(parts)
        if step % 100 == 0:
            means = {name: np.mean([parts[name] for parts in recent]) for name in FINDINGS}
            line = "  ".join(f"{name} {mean:.2f}" for name, mean in means.items())
            log(f"words {step:5d}  {line}")
            recent = []


def _is_trained(name: str) -> bool:
    if "lm_head" in name or "embed_tokens" in name:
        return False
    above = [f"language_model.layers.{n}." for n in range(LOWER_LAYERS, 10)]
    return not any(part in name for part in above)


def _lower_half(model: Any, batch: Batch, features: torch.Tensor) -> torch.Tensor:
    decoder = model.model.language_model
    all_layers = decoder.layers
    decoder.layers = all_layers[:LOWER_LAYERS]
    try:
        return decode(model, batch, features)
    finally:
        decoder.layers = all_layers


def _finding_loss(
    finder: nn.Linear, hidden: torch.Tensor, findings: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    is_word = findings[..., 0] != NOTHING
    logits = finder(hidden[is_word]).split(list(FINDINGS.values()), dim=-1)
    loss, parts = hidden.new_zeros(()), {}
    for place, (name, found) in enumerate(zip(FINDINGS, logits, strict=True)):
        part = F.cross_entropy(found, findings[is_word][:, place])
        parts[name] = float(part.detach())
        loss = loss + WEIGHTS[name] * part
    return loss, parts
