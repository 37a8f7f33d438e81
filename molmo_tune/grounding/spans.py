"""When something happens, as text: written in one way, read in several.

Molmo 2's training mixture holds a little moment retrieval, without one spelling for it. Written
here is the form that lists any number of moments, of QVHighlights in Ai2's trainer, with times as
all other answers spell them (`molmo_tune.grounding.times`):

    Segments: [1.5-4.0], [7.0-9.5]

Nothing that happens is `NO_SPANS`. Read are also the other forms of that mixture, so that a base
which was never fine-tuned can be scored: ``1.50 - 4.00`` on lines of their own, ``Start: 1.50, end:
4.00``, and what people write, ``from 1.5 to 4 seconds``. Clock times (``0:05``) are not read, nor
are spans that end before they start. Scores are in `molmo_tune.grounding.temporal`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from molmo_tune.grounding.text import NO_POINTS
from molmo_tune.grounding.times import format_time

Span = tuple[float, float]
NO_SPANS = NO_POINTS

_NUMBER = r"(?<![\d.:])(\d{1,9}+(?:\.\d{1,9}+)?+)(?![\d:])"
_UNIT = r"(?:\s{0,3}+(?:seconds|second|secs?|s)\b)?+"
_SPAN = re.compile(
    rf"{_NUMBER}{_UNIT}(?:\s{{0,3}}+[-–—]|,?\s{{0,3}}+(?:to|and|end:?)\b:?)\s{{0,3}}+{_NUMBER}",
    re.IGNORECASE,
)


def format_spans(spans: Sequence[Span]) -> str:
    """The answer for moments ``(start_s, end_s)``, sorted; `NO_SPANS` when there is none.

    Raises:
        UserError: a time is negative or not finite.
    """
    if not spans:
        return NO_SPANS
    parts = [f"[{format_time(float(a))}-{format_time(float(b))}]" for a, b in sorted(spans)]
    return f"Segments: {', '.join(parts)}"


def parse_spans(text: str) -> list[Span]:
    """All moments that a text states, in its order, in seconds."""
    found = [(float(match[1]), float(match[2])) for match in _SPAN.finditer(text)]
    return [(start, end) for start, end in found if start <= end]
