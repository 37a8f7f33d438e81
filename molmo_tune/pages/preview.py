"""The preview page: for each sample the frames the model sees and the tokens it is taught.

Everything shown is taken from the encoded sample itself, not from the labels: text is decoded from
the token ids, runs of vision tokens are folded and counted, and colours follow the loss weights, so
the page shows what training does even where that is not what the user meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import Item
from molmo_tune.grounding.text import parse_multi_image_points, parse_points
from molmo_tune.media.clip import read_images, read_video
from molmo_tune.pages.page import write_page
from molmo_tune.pages.pictures import Mark, picture

COLORS = ("#ffd400", "#00e5ff", "#ff5fa2", "#7dff6a", "#ff8a3c", "#c79bff")
MAX_FRAMES = 16
_SLACK_S = 0.06  # answers spell times with one decimal


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text whose tokens share one loss weight."""

    text: str
    weight: float


def write_preview(
    training_set: TrainingSet, processor: Any, out: Path, max_samples: int, note: str = ""
) -> int:
    """Write the page, `note` at its head; returns the number of samples shown.

    Raises:
        UserError: a medium does not decode, or the page cannot be written.
    """
    items = training_set.items[:max_samples]
    cards = [_card(item, training_set[number], processor) for number, item in enumerate(items)]
    total = len(training_set)
    write_page(
        "preview.html.j2",
        out,
        title="What the model is taught",
        lead=f"{len(cards)} of {total} sequences.{note}",
        cards=cards,
    )
    return len(cards)


def _card(item: Item, encoded: EncodedSample, processor: Any) -> dict[str, Any]:
    return {
        "sample_id": item.sample.id,
        "num_tokens": encoded.num_tokens,
        "num_vision": int(encoded.is_vision.sum()),
        "num_trained": encoded.num_supervised,
        "frames": _frames(item),
        "branches": branch_pieces(encoded, processor.tokenizer),
    }


def branch_pieces(encoded: EncodedSample, tokenizer: Any) -> list[list[Piece]]:
    """The shared prefix and each branch as text pieces.

    Targets are shifted, so a token's weight is that of the position before it; the last target of a
    branch (its end token) is appended.
    """
    branches = []
    for branch in np.unique(encoded.branch_ids):
        places = np.flatnonzero(encoded.branch_ids == branch)
        ids = [*encoded.input_ids[places], encoded.target_ids[places[-1]]]
        weights = [0.0, *encoded.loss_weights[places]]
        if encoded.target_ids[places[-1]] < 0 or (branch == 0 and encoded.branch_ids.any()):
            ids, weights = ids[:-1], weights[:-1]
        branches.append(_pieces(ids, weights, tokenizer))
    return branches


def _pieces(ids: Sequence[int], weights: Sequence[float], tokenizer: Any) -> list[Piece]:
    patch = tokenizer.convert_tokens_to_ids("<im_patch>")
    pieces: list[Piece] = []
    start = 0
    for end in range(1, len(ids) + 1):
        if (
            end < len(ids)
            and weights[end] == weights[start]
            and ((ids[end] == patch) == (ids[start] == patch))
        ):
            continue
        run = [int(i) for i in ids[start:end]]
        text = f"<im_patch>×{len(run)}" if run[0] == patch else tokenizer.decode(run)
        pieces.append(Piece(text, float(weights[start])))
        start = end
    return pieces


def _frames(item: Item) -> list[dict[str, str]]:
    paths = item.sample.media.paths
    if item.sampled is not None:
        frames = read_video(paths[0], item.sampled)
        shown = list(zip(frames, item.sampled.times_s, strict=True))[:MAX_FRAMES]
        return [
            {"uri": picture(frame, _marks_at(item, time)), "caption": f"{time:.1f} s"}
            for frame, time in shown
        ]
    images = read_images(paths)
    return [
        {"uri": picture(image, _marks_on(item, number, image)), "caption": f"image {number}"}
        for number, image in enumerate(images, start=1)
    ]


def _marks_at(item: Item, time_s: float) -> list[Mark]:
    assert item.sampled is not None
    marks = []
    for number, conversation in enumerate(item.conversations):
        points = parse_points(conversation.answer, size_wh=item.sampled.size_wh)
        color = COLORS[number % len(COLORS)]
        marks += [
            Mark(p.xy_px, color, f"{conversation.label} {p.id}")
            for p in points
            if abs(p.frame_id - time_s) < _SLACK_S
        ]
    return marks


def _marks_on(item: Item, number: int, image: NDArray[np.uint8]) -> list[Mark]:
    size = (image.shape[1], image.shape[0])
    marks = []
    for order, conversation in enumerate(item.conversations):
        if len(item.sizes_wh) > 1:
            parsed = parse_multi_image_points(conversation.answer, sizes_wh=item.sizes_wh)
            points = [p for p in parsed if int(p.frame_id) == number]
        else:
            points = parse_points(conversation.answer, size_wh=size)
        color = COLORS[order % len(COLORS)]
        marks += [Mark(p.xy_px, color, f"{conversation.label} {p.id}") for p in points]
    return marks
