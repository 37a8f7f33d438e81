"""The preview page: for each sample the frames the model sees and the tokens it is taught.

Everything shown is taken from the encoded sample itself, not from the labels: frames of videos are
put together from the patches, text is decoded from the token ids, runs of vision tokens are folded
and counted, and colours follow the loss weights. So the page shows what training does even where
that is not what the user meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import Item
from molmo_tune.grounding.text import ParsedPoint, parse_multi_image_points, parse_points
from molmo_tune.media.clip import read_images
from molmo_tune.pages.pack_map import Row
from molmo_tune.pages.page import write_page
from molmo_tune.pages.pictures import Mark, frames_of_patches, picture

COLORS = ("#ffd400", "#00e5ff", "#ff5fa2", "#7dff6a", "#ff8a3c", "#c79bff")
MAX_FRAMES = 16
TRAIL = 8  # earlier positions of an object that are joined by a line
_SLACK_S = 0.06  # answers spell times with one decimal


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text whose tokens share one loss weight; ``share``: of the largest weight."""

    text: str
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class _Said:
    """A point of an answer, and which question (from 0) it answers."""

    question: int
    label: str
    point: ParsedPoint


def write_preview(
    items: Sequence[Item],
    encoded: Sequence[EncodedSample],
    tokenizer: Any,
    out: Path,
    *,
    lead: str,
    rows: Sequence[Row] = (),
) -> None:
    """Write the page.

    Args:
        items: what is shown.
        encoded: the same, encoded.
        tokenizer: of the checkpoint.
        out: the page.
        lead: said at its head.
        rows: how sequences share rows in training.

    Raises:
        UserError: an image does not open, or the page cannot be written.
    """
    cards = [_card(*pair, tokenizer) for pair in zip(items, encoded, strict=True)]
    title = "What the model is taught"
    write_page("preview.html.j2", out, title=title, lead=lead, cards=cards, rows=rows)


def _card(item: Item, encoded: EncodedSample, tokenizer: Any) -> dict[str, Any]:
    return {
        "sample_id": item.sample.id,
        "labels": ", ".join(dict.fromkeys(c.label for c in item.conversations if c.label)),
        "num_tokens": encoded.num_tokens,
        "num_vision": int(encoded.is_vision.sum()),
        "num_trained": encoded.num_supervised,
        "num_crops": item.num_crops,
        "is_video": item.sampled is not None,
        "frames": _frames(item, encoded),
        "branches": branch_pieces(encoded, tokenizer),
    }


def branch_pieces(encoded: EncodedSample, tokenizer: Any) -> list[list[Piece]]:
    """The shared prefix and each branch as text pieces.

    Targets are shifted, so a token's weight is that of the position before it; the last target of a
    branch (its end token) is appended.
    """
    branches = []
    largest = float(encoded.loss_weights.max(initial=0.0))
    for branch in np.unique(encoded.branch_ids):
        places = np.flatnonzero(encoded.branch_ids == branch)
        ids = [*encoded.input_ids[places], encoded.target_ids[places[-1]]]
        weights = [0.0, *encoded.loss_weights[places]]
        if encoded.target_ids[places[-1]] < 0 or (branch == 0 and encoded.branch_ids.any()):
            ids, weights = ids[:-1], weights[:-1]
        branches.append(_pieces(ids, weights, largest, tokenizer))
    return branches


def _pieces(
    ids: Sequence[int], weights: Sequence[float], largest: float, tokenizer: Any
) -> list[Piece]:
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
        weight = float(weights[start])
        pieces.append(Piece(text, weight, weight / largest if largest else 0.0))
        start = end
    return pieces


def _frames(item: Item, encoded: EncodedSample) -> list[dict[str, str]]:
    if item.sampled is None:
        images = read_images(item.sample.media.paths)
        return [
            {"uri": picture(image, _marks_on(item, number)), "caption": f"image {number}"}
            for number, image in enumerate(images, start=1)
        ]
    times, size = item.sampled.times_s, item.sampled.size_wh
    said = _said_of_video(item)
    shown = _shown_frames(times, said)
    pictures = frames_of_patches(encoded.patches[shown])
    return [
        {
            "uri": picture(frame, _marks_at(said, times[number]), size_wh=size),
            "caption": f"{times[number]:.1f} s",
        }
        for number, frame in zip(shown, pictures, strict=True)
    ]


def _shown_frames(times_s: Sequence[float], said: Sequence[_Said]) -> list[int]:
    """At most so many frames, evenly spread, first of all among those an answer speaks of."""
    spoken = [number for number, time in enumerate(times_s) if _at(said, time)]
    others = sorted(set(range(len(times_s))) - set(spoken))
    chosen = _spread(spoken, MAX_FRAMES)
    return sorted(chosen + _spread(others, MAX_FRAMES - len(chosen)))


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    kept = min(most, len(numbers))
    return [numbers[place * len(numbers) // kept] for place in range(kept)]


def _said_of_video(item: Item) -> list[_Said]:
    assert item.sampled is not None
    return [
        _Said(number, conversation.label, point)
        for number, conversation in enumerate(item.conversations)
        for point in parse_points(conversation.answer, size_wh=item.sampled.size_wh)
    ]


def _at(said: Sequence[_Said], time_s: float) -> list[_Said]:
    return [one for one in said if abs(one.point.frame_id - time_s) < _SLACK_S]


def _marks_at(said: Sequence[_Said], time_s: float) -> list[Mark]:
    return [_mark(one, tuple(_before(said, one)[-TRAIL:])) for one in _at(said, time_s)]


def _before(said: Sequence[_Said], one: _Said) -> list[tuple[float, float]]:
    """Where the same object of the same answer was said to be earlier."""
    earlier = (
        other.point
        for other in said
        if (other.question, other.point.id) == (one.question, one.point.id)
        and other.point.frame_id < one.point.frame_id
    )
    return [point.xy_px for point in sorted(earlier, key=lambda point: point.frame_id)]


def _marks_on(item: Item, number: int) -> list[Mark]:
    marks = []
    for order, conversation in enumerate(item.conversations):
        if len(item.sizes_wh) > 1:
            parsed = parse_multi_image_points(conversation.answer, sizes_wh=item.sizes_wh)
            points = [p for p in parsed if int(p.frame_id) == number]
        else:
            points = parse_points(conversation.answer, size_wh=item.sizes_wh[0])
        marks += [_mark(_Said(order, conversation.label, point)) for point in points]
    return marks


def _mark(one: _Said, trail: tuple[tuple[float, float], ...] = ()) -> Mark:
    color = COLORS[one.question % len(COLORS)]
    return Mark(one.point.xy_px, color, f"{one.label} {one.point.id}", trail)
