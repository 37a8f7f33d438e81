"""`Reader`, the interface of a label format: one module in `formats/` that ends in a `READER`.

    formats/images/createml.py        recognizes and reads such files
        READER = Reader(one_by_one(read_createml), looks_like_createml, "*.json", "CreateML (…)")

The module's name is the format's name in a recipe. Reading is a pure function of files and a media
folder. It may yield samples one at a time, so that a file of a million rows is never held in
memory. `molmo_tune.labels.read` contains what all formats share.
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
        read: returns the samples of files, in order, given the media and the tally of the rows.
        looks_like: whether the beginning of a file has this format.
        pattern: glob pattern of such files in a folder.
        title: name of the format and, in parentheses, its mark.
        by_name_only: whether the format cannot be detected or checked; the user must name it.
    """

    read: Callable[..., Iterable[Sample]]
    looks_like: Callable[[str], bool]
    pattern: str
    title: str
    by_name_only: bool = False


def one_by_one(
    read: Callable[[Path, MediaSource, Tally], Iterable[Sample]],
) -> Callable[[Sequence[Path], MediaSource, Tally], Iterator[Sample]]:
    """Return a reader of many files, for formats that read each file on its own."""

    def read_all(files: Sequence[Path], media: MediaSource, tally: Tally) -> Iterator[Sample]:
        for file in files:
            yield from read(file, media, tally)

    return read_all
