"""Rows of numbers in a text file, one per line, split into fields.

MOTChallenge, KITTI, LaSOT and similar formats share this file layout; each format's module defines
the fields. Empty lines are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, spelled
from molmo_tune.labels.sample import Box

# each digit matches in one way only; otherwise a long line of digits would take hours
NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_WHOLE = re.compile(r"\s*[+-]?\d{1,15}(\.0*)?\s*")


@dataclass(frozen=True, slots=True)
class TextRow:
    """Fields of a line and its ``file:line``."""

    fields: list[str]
    place: str


def text_rows(path: Path, separator: str | None = None) -> Iterator[TextRow]:
    """Yield the rows of a file.

    Args:
        path: the text file.
        separator: text between fields; by default any whitespace.

    Raises:
        UserError: the file is empty or not text.
    """
    name = str(path)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield TextRow(line.split(separator), f"{name}:{number}")


def looks_like_rows(head: str, pattern: str) -> bool:
    """Whether the first nonempty line matches the pattern of a row."""
    first = next((line for line in head.lstrip().splitlines()[:1]), "")
    return re.fullmatch(pattern, first.strip()) is not None


def whole(text: object) -> int | None:
    """Return the integer in a text (``7`` or ``7.0``), None if it is not one."""
    if not isinstance(text, str):
        return None
    if text.isdecimal() and len(text) <= 15:  # nearly all rows, and four times as fast
        return int(text)
    if not _WHOLE.fullmatch(text):
        return None
    return int(text.strip().split(".", 1)[0])


def box_of(fields: list[str], origin: float = 0.0) -> Box:
    """Return the box of ``left, top, width, height``, in pixels with origin 0.

    Args:
        fields: the four numbers as text.
        origin: the file's coordinate of the first pixel, 0 or 1.

    Raises:
        DroppedRowError: a field is not a number, or a side is negative.
    """
    left, top, width, height = spelled(fields)
    if width < 0 or height < 0:
        raise DroppedRowError(NEGATIVE)
    left, top = left - origin, top - origin
    return Box((left, top, left + width, top + height))
