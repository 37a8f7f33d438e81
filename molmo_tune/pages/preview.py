"""The preview page: for each sample the frames the model sees and the tokens it is taught.

Everything shown is taken from the encoded sample itself, not from the labels: frames of videos are
put together from the patches, text is decoded from the token ids, runs of vision tokens are folded
and counted, and colors follow the loss weights. So the page shows what training does even where
that is not what the user meant.
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
from molmo_tune.pages.frames import frame_pictures
from molmo_tune.pages.pack_map import Row
from molmo_tune.pages.page import write_page


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text whose tokens share one loss weight; ``share``: of the largest weight."""

    text: str
    weight: float
    share: float


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
        items: what is shown.
        encode: gives the encoded one of that number; asked once for each, nothing is kept.
        tokenizer: of the checkpoint.
        out: the page.
        lead: said at its head.
        rows: how sequences share rows in training.

    Raises:
        UserError: a medium does not decode, or the page cannot be written.
    """
    cards = [_card(item, encode(number), tokenizer) for number, item in enumerate(items)]
    title = "What the model is taught"
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
        "frames": frame_pictures(item, encoded.patches),
        "branches": branch_pieces(encoded, tokenizer),
    }


def branch_pieces(encoded: EncodedSample, tokenizer: Tokenizer) -> list[list[Piece]]:
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
