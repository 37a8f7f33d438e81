"""The preview page: the frames that the model sees and the tokens that it is trained on.

Everything is rebuilt from the encoded sample, not from the labels: video frames from the patches,
text from the token ids, colors from the loss weights; runs of vision tokens are folded and counted.
So the page shows what training does, even if that is not what the user meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.processor import Tokenizer
from molmo_tune.pages.frames import drawn_frames
from molmo_tune.pages.pack_map import Row
from molmo_tune.pages.page import write_page


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text with one loss weight; ``fraction``: of the largest weight."""

    text: str
    weight: float
    fraction: float


def write_preview(
    items: Sequence[Item],
    encode: Callable[[int], EncodedSample],
    tokenizer: Tokenizer,
    out: Path,
    *,
    lead: str,
    rows: Sequence[Row] = (),
) -> None:
    """Write the page.

    Args:
        items: sequences to show.
        encode: returns the encoded item with this index; called once per item, nothing is kept.
        tokenizer: tokenizer of the checkpoint.
        out: HTML file.
        lead: text at the top.
        rows: packs of the first training steps.

    Raises:
        UserError: a media file does not decode, or the page cannot be written.
    """
    cards = [_card(item, encode(number), tokenizer) for number, item in enumerate(items)]
    title = "Model inputs and targets"
    write_page("preview.html.j2", out, title=title, lead=lead, cards=cards, rows=rows)


def _card(item: Item, encoded: EncodedSample, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "sample_id": item.sample.id,
        "labels": ", ".join(dict.fromkeys(c.label for c in item.conversations if c.label)),
        "num_tokens": encoded.num_tokens,
        "num_vision": int(encoded.is_vision.sum()),
        "num_trained": encoded.num_supervised,
        "num_crops": item.num_crops,
        "is_video": item.sampled is not None,
        "frames": drawn_frames(item, encoded.patches),
        "branches": branch_pieces(encoded, tokenizer),
    }


def branch_pieces(encoded: EncodedSample, tokenizer: Tokenizer) -> list[list[Piece]]:
    """Return the shared prefix and each branch as text pieces.

    Targets are shifted, so the weight of a token is stored at the position before it; the last
    target of a branch (its end token) is appended.
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
    ids: Sequence[int], weights: Sequence[float], largest: float, tokenizer: Tokenizer
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
