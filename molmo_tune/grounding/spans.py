"""Spans of time as text: one format for writing, several for reading.

Molmo 2's training mixture contains some moment retrieval, in several formats. This module writes
the one that lists any number of spans (QVHighlights in Ai2's trainer), with times as in all other
answers (`molmo_tune.grounding.times`):

    Segments: [1.5-4.0], [7.0-9.5]

Without a span, the answer is `NO_SPANS`. To score a base that was never fine-tuned, the parser also
reads the other formats of the mixture, ``1.50 - 4.00`` on separate lines and ``Start: 1.50, end:
4.00``, and natural phrases such as ``from 1.5 to 4 seconds``.

Limitations: ignores clock times (``0:05``) and spans that end before they start. Scores are in
`molmo_tune.grounding.temporal`.
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
    """Return the answer for spans ``(start_s, end_s)``, sorted; `NO_SPANS` if there are none.

    Raises:
        UserError: a time is negative or not finite.
    """
    if not spans:
        return NO_SPANS
    parts = [f"[{format_time(float(a))}-{format_time(float(b))}]" for a, b in sorted(spans)]
    return f"Segments: {', '.join(parts)}"


def parse_spans(text: str) -> list[Span]:
    """Return all spans in a text, in order, as ``(start_s, end_s)``."""
    found = [(float(match[1]), float(match[2])) for match in _SPAN.finditer(text)]
    return [(start, end) for start, end in found if start <= end]
