"""Rows of numbers in plain text: lines of a file, cut into fields, each with its place.

MOTChallenge, KITTI, LaSOT and their kin are files of one row per line. What they share is how a
line becomes fields; what the fields mean is each format's own module. Empty lines are no rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.image_objects import NEGATIVE, LostError, spelled
from molmo_tune.labels.sample import Box

# each digit fits in one way only, or a line of digits would keep the search busy for hours
NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_WHOLE = re.compile(r"\s*[+-]?\d{1,15}(\.0*)?\s*")


@dataclass(frozen=True, slots=True)
class TextRow:
    """The fields of a line and its ``file:line``."""

    fields: list[str]
    place: str


def text_rows(path: Path, separator: str | None = None) -> Iterator[TextRow]:
    """The rows of a file.

    Args:
        path: of the file.
        separator: between fields; by default any run of blanks.

    Raises:
        UserError: the file is empty or no text.
    """
    name = str(path)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield TextRow(line.split(separator), f"{name}:{number}")


def looks_like_rows(head: str, pattern: str) -> bool:
    """Whether the first line that is not empty is such a row."""
    first = next((line for line in head.lstrip().splitlines()[:1]), "")
    return re.fullmatch(pattern, first.strip()) is not None


def whole(text: object) -> int | None:
    """The whole number that a text spells (``7`` or ``7.0``), None when it spells none."""
    if not isinstance(text, str):
        return None
    if text.isdecimal() and len(text) <= 15:  # nearly all there is, and four times as fast
        return int(text)
    if not _WHOLE.fullmatch(text):
        return None
    return int(text.strip().split(".", 1)[0])


def box_of(fields: list[str], origin: float = 0.0) -> Box:
    """The box of ``left, top, width, height``.

    Args:
        fields: four numbers as text.
        origin: what the file calls the first pixel, 0 or 1.

    Raises:
        LostError: a number is none, or a side is negative.
    """
    left, top, width, height = spelled(fields)
    if width < 0 or height < 0:
        raise LostError(NEGATIVE)
    left, top = left - origin, top - origin
    return Box((left, top, left + width, top + height))
