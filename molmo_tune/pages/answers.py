"""The page of `molmo-tune predict`: all media with questions, answers and points.

A card is made as soon as the questions about a media file are answered, so that its pixels need not
be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molmo_tune.evaluation.predict import Prediction
from molmo_tune.pages.frames import COLORS, drawn_frames
from molmo_tune.pages.page import write_page

Card = dict[str, Any]


def answer_card(prediction: Prediction) -> Card:
    """Return the page's entry for one media file.

    Raises:
        UserError: an image does not open.
    """
    item = prediction.item
    answered = zip(item.conversations, prediction.answers, strict=True)
    return {
        "name": ", ".join(str(path) for path in item.sample.media.paths),
        "frames": drawn_frames(item, prediction.patches),
        "answers": [
            {
                "color": COLORS[number % len(COLORS)],
                "question": conversation.question,
                "text": answer.text,
                "is_truncated": answer.is_truncated,
            }
            for number, (conversation, answer) in enumerate(answered)
        ],
    }


def write_answers(cards: Sequence[Card], out: Path, *, model: str) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    lead = f"{model}: {len(cards)} media files."
    write_page("answers.html.j2", out, title="Model answers", lead=lead, cards=cards)
