"""Stage 0 of the tiny base: teach its eyes to see before it learns to speak.

The released models start from a vision tower that was trained on images and texts; a fresh one
gives the decoder nothing to attend to, and pointing is then learned late or not at all (2,000 steps
at chance, measured). So tower and connector first learn, with throw-away linear heads on every
vision token, what lies in its cell of the frame: whether an object's center does, its shape, and
the leading digits of its place.

Its color is read with the embeddings of the colors' own words as the head. That is what training
on images and texts does to a released tower: a picture of something red points where the word "red"
points, and the decoder needs only to look for what is alike (`word_pretraining`).
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

from molmo_tune.encoding.vision_inputs import video_inputs
from molmo_tune.model.vision_encoding import encode_vision
from molmo_tune.tiny.checkpoint import SIDE, VIDEO_GRID
from molmo_tune.tiny.shapes import COLORS, SHAPES, Thing, draw_clip

FRAMES_PER_BATCH = 64
# What a cell's token must tell, and among how many answers: hundreds and tens of x and y.
QUESTIONS = {"color": len(COLORS), "shape": len(SHAPES), "x1": 10, "x2": 10, "y1": 10, "y2": 10}
WEIGHTS = {"color": 1.0, "shape": 0.3, "x1": 1.0, "x2": 0.6, "y1": 1.0, "y2": 0.6}
NOTHING = -1
WORD_SCALE = 0.3  # of the product of a feature and a word's embedding

Cells = NDArray[np.int64]
Parts = dict[str, float]


class Eyes(nn.Module):
    """The throw-away heads and what they make of features: a loss that trains the features."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        width = model.config.text_config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in QUESTIONS.items()})
        self.presence = nn.Linear(width, 1)
        self.words = _color_words(model, processor)

    def loss(self, features: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        """Loss and its parts, of features ``(T, d)`` and truth ``(T, questions)``."""
        there = truth[:, 0] != NOTHING
        loss = F.binary_cross_entropy_with_logits(self.presence(features)[:, 0], there.float())
        seen, parts = features[there], {}
        for place, (name, head) in enumerate(self.heads.items()):
            logits = WORD_SCALE * seen @ self.words.T if name == "color" else head(seen)
            part = F.cross_entropy(logits, truth[there, place])
            parts[name] = float(part.detach())
            loss = loss + WEIGHTS[name] * part
        return loss, parts


class Scenes(IterableDataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Batches of single frames: patches, pooling rows and the truth of every cell."""

    def __init__(self, processor: Any, steps: int, seed: int) -> None:
        self._processor, self._steps, self._seed = processor, steps, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for step in range(self._steps):
            rng = np.random.default_rng([self._seed, 1_000_003, step])
            frames, cells = [], []
            for _ in range(FRAMES_PER_BATCH):
                drawn, things = draw_clip(
                    rng, num_frames=1, num_things=int(rng.integers(1, 5)), side=SIDE
                )
                frames.append(drawn[0])
                cells.append(cell_truth(things, 0))
            times = [0.0] * len(frames)
            vision = video_inputs(self._processor, np.stack(frames), times)
            yield (
                torch.from_numpy(vision.patches),
                torch.from_numpy(vision.pooling),
                torch.from_numpy(np.concatenate(cells)),
            )


def cell_truth(things: list[Thing], frame: int) -> Cells:
    """Answers ``(cells, questions)`` about a frame, `NOTHING` where no center lies."""
    truth = np.full((VIDEO_GRID**2, len(QUESTIONS)), NOTHING)
    names = list(COLORS)
    for thing in things:
        if not thing.first_frame <= frame <= thing.last_frame:
            continue
        x, y = inside(thing.xy(frame))
        cell = int(y * VIDEO_GRID) * VIDEO_GRID + int(x * VIDEO_GRID)
        color = names.index(thing.hue)
        truth[cell] = (color, SHAPES.index(thing.shape), *leading_digits(x), *leading_digits(y))
    return truth


def inside(xy: tuple[float, float]) -> tuple[float, float]:
    """A place moved into the frame, shares of its sides below 1."""
    x, y = (min(max(v, 0.0), 0.999) for v in xy)
    return x, y


def leading_digits(share: float) -> tuple[int, int]:
    """Tenths and hundredths: the hundreds and tens of a coordinate."""
    return int(share * 10), int(share * 100) % 10


def teach_vision(
    model: Any, processor: Any, *, steps: int, seed: int, lr: float, say: Callable[[str], None]
) -> None:
    """Train tower and connector of `model` in place."""
    torch.manual_seed(seed)
    body, eyes = model.model, Eyes(model, processor)
    seeing = [*body.vision_tower.parameters(), *body.multi_modal_projector.parameters()]
    optimizer = torch.optim.AdamW([*seeing, *eyes.parameters()], lr=lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    loader = DataLoader(
        Scenes(processor, steps, seed), batch_size=None, num_workers=1, prefetch_factor=4
    )
    for step, (patches, pooling, truth) in enumerate(loader, start=1):
        features = encode_vision(body, patches, pooling, chunk=FRAMES_PER_BATCH)
        loss, parts = eyes.loss(features, truth)
        loss.backward()
        nn.utils.clip_grad_norm_(seeing, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0:
            told = "  ".join(f"{name} {part:.2f}" for name, part in parts.items())
            say(f"eyes {step:5d}  loss {float(loss.detach()):.3f}  {told}")


def color_ids(processor: Any) -> list[int]:
    """Tokens of the colors' words as they stand in a question, in the order of `COLORS`."""
    ids = [processor.tokenizer.encode(f" {name}", add_special_tokens=False) for name in COLORS]
    if any(len(one) != 1 for one in ids):
        raise ValueError("every color must be one token of the tiny tokenizer")
    return [one[0] for one in ids]


def _color_words(model: Any, processor: Any) -> torch.Tensor:
    """Embeddings ``(colors, d)`` of the colors' words."""
    table: torch.Tensor = model.model.language_model.embed_tokens.weight
    return table[torch.tensor(color_ids(processor))].detach()
