"""What lies in a folder of labels that nobody described: the format, and which files are of it.

Folders are asked from the top down, each about its own label files, by the same beginnings that
`molmo_tune.labels.sniff` looks at. Formats whose files lie at a fixed place below their folder
(`**/gt.txt`) are asked once, at the top. Which part is for training and which for validation is
told by the names that people give to folders and files. Nothing is read here beyond beginnings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_head
from molmo_tune.labels.read import READERS
from molmo_tune.labels.sniff import format_of

Split = Literal["train", "val", "test", ""]
_SPLITS: tuple[tuple[Split, str], ...] = (
    ("train", r"train\d*|training"),
    ("val", r"val\d*|valid|validation|dev"),
    ("test", r"test\d*|testing"),
)
_MAX_DEPTH = 4
_MAX_LOOKS = 20  # beginnings per folder; label files of one folder are of one kind
_MEDIA_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".jpg", ".jpeg", ".png"}


@dataclass(frozen=True, slots=True)
class Place:
    """A label file, or a folder of them, and the part of the data that its name says it is."""

    path: Path
    split: Split


def detect_format(path: Path) -> str:
    """Name of the format of a label file, or of the label files in a folder.

    Raises:
        UserError: no such file, or its format is none or several of those that are known; of a
            folder, where below it labels are that can be read.
    """
    try:
        return format_of(path, READERS)
    except UserError as error:
        deeper = _formats(path) if path.is_dir() else {}
        if not deeper or any(path in places for places in deeper.values()):
            raise
        listed = "; ".join(f"{name} in {places[0]}" for name, places in deeper.items())
        fix = "convert that folder, or let molmo-tune init look at all of them"
        raise UserError(path, f"{error.found}, but {listed}", "one format", fix) from error


def survey(folder: Path, wanted: str | None = None) -> tuple[str, list[Place]]:
    """The one format in a folder (or the wanted one) and where its labels are.

    Raises:
        UserError: no such folder, no format that is known, or several and none was wanted.
    """
    if not folder.is_dir():
        raise UserError(folder, "no such folder", "a folder with labels and their media")
    if wanted is not None and wanted not in READERS:
        raise UserError("--labels", f"unknown format {wanted!r}", f"one of {', '.join(READERS)}")
    found = _formats(folder)
    if wanted is None and len(found) > 1:
        listed = "; ".join(f"{name} in {places[0]}" for name, places in found.items())
        raise UserError(folder, f"several formats: {listed}", "one", "name it with --labels")
    name = wanted or next(iter(found), None)
    if name is None or name not in found:
        what = "no label format that is known" if wanted is None else f"no labels of {wanted}"
        raise UserError(folder, what, f"one of {', '.join(READERS)}", "see molmo-tune convert")
    return name, [place for path in found[name] for place in _places(path, folder, name)]


def media_folders(top: Path) -> list[Path]:
    """Folders with images or videos; of several side by side the one that they lie in."""
    holding = [
        folder
        for folder in _folders(top)
        if any(path.suffix.lower() in _MEDIA_SUFFIXES for path in folder.iterdir())
    ]
    siblings = Counter(folder.parent for folder in holding)
    return list(
        dict.fromkeys(
            folder.parent if folder != top and siblings[folder.parent] > 1 else folder
            for folder in holding
        )
    )


def _formats(top: Path) -> dict[str, list[Path]]:
    """Format → folders that hold files of it; our own JSONL names itself and goes first."""
    found: dict[str, list[Path]] = {}
    for folder in _folders(top):
        names = _names_in(folder, deep=folder == top)
        for name in ["jsonl"] if "jsonl" in names else names:
            found.setdefault(name, []).append(folder)
    return found


def _folders(top: Path, depth: int = 0) -> Iterator[Path]:
    yield top
    if depth < _MAX_DEPTH:
        for path in sorted(top.iterdir()):
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield from _folders(path, depth + 1)


def _names_in(folder: Path, deep: bool) -> list[str]:
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.stat().st_size and path.suffix.lower() not in _MEDIA_SUFFIXES
    ]
    heads = {path: read_head(path) for path in files[:_MAX_LOOKS] if path.name[0] != "."}
    names = []
    for name, reader in READERS.items():
        if "/" in reader.pattern:
            below = sorted(folder.glob(reader.pattern))[:_MAX_LOOKS] if deep else []
            fits = any(reader.looks_like(read_head(path)) for path in below if path.is_file())
        else:
            fits = any(
                fnmatch(path.name, reader.pattern) and reader.looks_like(head)
                for path, head in heads.items()
            )
        if fits:
            names.append(name)
    return names


def _places(path: Path, top: Path, name: str) -> list[Place]:
    """The folder as a whole, or its parts where their names tell them apart."""
    split = _split_of(path.relative_to(top).as_posix())
    if split:
        return [Place(path, split)]
    reader = READERS[name]
    if "/" in reader.pattern:
        inside = [one for one in sorted(path.iterdir()) if one.is_dir()]
    else:
        files = sorted(one for one in path.glob(reader.pattern) if one.is_file())
        inside = [one for one in files if reader.looks_like(read_head(one))]
    parts = [Place(one, _split_of(one.stem)) for one in inside]
    if {"train", "val"} <= {part.split for part in parts} and all(part.split for part in parts):
        return parts
    return _one_or_all(path, inside)


def _one_or_all(path: Path, inside: list[Path]) -> list[Place]:
    """One file is named itself, so that its neighbors (settings, reports) are not read."""
    return [Place(inside[0] if len(inside) == 1 else path, "")]


def _split_of(name: str) -> Split:
    """By the last part of a path that says one: of `training_data/val` it is `val`."""
    for part in reversed(name.lower().split("/")):
        words = re.split(r"[^a-z0-9]+", part)
        for split, sign in _SPLITS:
            if any(re.fullmatch(sign, word) for word in words):
                return split
    return ""
