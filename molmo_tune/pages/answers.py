"""The page of `molmo-tune predict`: every medium with the questions, the answers, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from molmo_tune.evaluation.predict import Prediction
from molmo_tune.pages.frames import COLORS, frame_pictures
from molmo_tune.pages.page import write_page


def write_answers(predictions: Sequence[Prediction], out: Path, *, model: str) -> None:
    """Write the page.

    Raises:
        UserError: an image does not open, or the page cannot be written.
    """
    cards = [
        {
            "name": ", ".join(str(path) for path in one.item.sample.media.paths),
            "frames": frame_pictures(one.item, one.patches),
            "answers": [
                {
                    "color": COLORS[number % len(COLORS)],
                    "question": conversation.question,
                    "text": answer.text,
                    "is_cut": answer.is_cut,
                }
                for number, (conversation, answer) in enumerate(
                    zip(one.item.conversations, one.answers, strict=True)
                )
            ],
        }
        for one in predictions
    ]
    lead = f"{model}: {len(cards)} media."
    write_page("answers.html.j2", out, title="What the model answers", lead=lead, cards=cards)
