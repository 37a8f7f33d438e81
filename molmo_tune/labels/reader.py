"""What a label format provides: one module in `formats/` that ends in a `READER`.

    formats/images/createml.py        how to recognize such a file and how to read it
        READER = Reader(one_by_one(read_createml), looks_like_createml, "*.json", "CreateML (…)")

The module has the name that a recipe uses for the format. Reading is a pure function of files and a
media folder. It may yield samples one at a time, so that a file of a million rows is converted
without holding them all. What all formats share is in `molmo_tune.labels.read`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample


@dataclass(frozen=True, slots=True)
class Reader:
    """One label format.

    Args:
        read: samples of the files, in order, given the media and the tally that counts the rows.
        looks_like: whether the beginning of a file is of this format.
        pattern: names of such files in a folder.
        title: what the format is called, and what it is told by.
        by_name_only: no file is told to be of this format, or not to be; the user must say so.
    """

    read: Callable[..., Iterable[Sample]]
    looks_like: Callable[[str], bool]
    pattern: str
    title: str
    by_name_only: bool = False


def one_by_one(
    read: Callable[[Path, MediaSource, Tally], Iterable[Sample]],
) -> Callable[[Sequence[Path], MediaSource, Tally], Iterator[Sample]]:
    """A reader of one file as one of several, for formats whose files do not need each other."""

    def read_all(files: Sequence[Path], media: MediaSource, tally: Tally) -> Iterator[Sample]:
        for file in files:
            yield from read(file, media, tally)

    return read_all
