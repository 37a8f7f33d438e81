"""Survey of an unknown folder of labels: the format, and the files that have it.

Folders are searched from the top down. Each is judged by its own label files, by the same
beginnings as in `molmo_tune.labels.sniff`. Formats whose files have a fixed place below their
folder (`**/gt.txt`) are looked for once, at the top. The names of folders and files decide which
labels are for training and which for validation. Only the beginnings of files are read.
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
from molmo_tune.labels.sniff import LIST_FORMATS, format_of

Split = Literal["train", "val", "test", ""]
_SPLITS: tuple[tuple[Split, str], ...] = (
    ("train", r"train\d*|training"),
    ("val", r"val\d*|valid|validation|dev"),
    ("test", r"test\d*|testing"),
)
_MAX_DEPTH = 4
_MAX_FILES = 20  # read per folder; label files of one folder have one format
_MEDIA_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".jpg", ".jpeg", ".png"}


@dataclass(frozen=True, slots=True)
class Place:
    """Label file, or folder of label files, and the split that its name indicates."""

    path: Path
    split: Split


def detect_format(path: Path) -> str:
    """Return the format name of a label file, or of the label files in a folder.

    Raises:
        UserError: no such file, or no format or several formats match; for a folder, the error also
            lists labels in its subfolders.
    """
    try:
        return format_of(path, READERS)
    except UserError as error:
        deeper = _formats(path) if path.is_dir() else {}
        if not deeper or any(path in places for places in deeper.values()):
            raise
        listed = "; ".join(f"{name} in {places[0]}" for name, places in deeper.items())
        fix = "convert that folder, or run molmo-tune init on all of them"
        raise UserError(path, f"{error.found}, but {listed}", "one format", fix) from error


def survey(folder: Path, format: str | None = None) -> tuple[str, list[Place]]:
    """Return the one format in a folder (or the given format) and where its labels are.

    Raises:
        UserError: no such folder, no known format, or several formats and none given.
    """
    if not folder.is_dir():
        raise UserError(folder, "no such folder", "a folder with labels and their media")
    if format is not None and format not in READERS:
        raise UserError("--labels", f"unknown format {format!r}", "a label format", LIST_FORMATS)
    found = _formats(folder)
    if format is None and len(found) > 1:
        listed = "; ".join(f"{name} in {places[0]}" for name, places in found.items())
        raise UserError(folder, f"several formats: {listed}", "one format", "pass --labels FORMAT")
    name = format or next(iter(found), None)
    if name is None or name not in found:
        what = "no known label format" if format is None else f"no labels of format {format}"
        raise UserError(folder, what, "labels of a supported format", LIST_FORMATS)
    return name, [place for path in found[name] for place in _places(path, folder, name)]


def media_folders(top: Path) -> list[Path]:
    """Return the folders with images or videos; sibling folders are replaced by their parent."""
    with_media = [
        folder
        for folder in _folders(top)
        if any(path.suffix.lower() in _MEDIA_SUFFIXES for path in folder.iterdir())
    ]
    siblings = Counter(folder.parent for folder in with_media)
    return list(
        dict.fromkeys(
            folder.parent if folder != top and siblings[folder.parent] > 1 else folder
            for folder in with_media
        )
    )


def _formats(top: Path) -> dict[str, list[Path]]:
    """Return the folders of each format; our own JSONL states its format and takes precedence."""
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
    heads = {path: read_head(path) for path in files[:_MAX_FILES] if path.name[0] != "."}
    names = []
    for name, reader in READERS.items():
        if "/" in reader.pattern:
            files_below = sorted(folder.glob(reader.pattern))[:_MAX_FILES] if deep else []
            is_found = any(
                reader.looks_like(read_head(path)) for path in files_below if path.is_file()
            )
        else:
            is_found = any(
                fnmatch(path.name, reader.pattern) and reader.looks_like(head)
                for path, head in heads.items()
            )
        if is_found:
            names.append(name)
    return names


def _places(path: Path, top: Path, name: str) -> list[Place]:
    """Return the folder, or its splits if the names of its parts indicate them."""
    split = _split_of(path.relative_to(top).as_posix())
    if split:
        return [Place(path, split)]
    reader = READERS[name]
    if "/" in reader.pattern:
        inside = [entry for entry in sorted(path.iterdir()) if entry.is_dir()]
    else:
        files = sorted(file for file in path.glob(reader.pattern) if file.is_file())
        inside = [file for file in files if reader.looks_like(read_head(file))]
    parts = [Place(entry, _split_of(entry.stem)) for entry in inside]
    if {"train", "val"} <= {part.split for part in parts} and all(part.split for part in parts):
        return parts
    return _one_or_all(path, inside)


def _one_or_all(path: Path, inside: list[Path]) -> list[Place]:
    """Return a single label file itself, so that other files in its folder are not read."""
    return [Place(inside[0] if len(inside) == 1 else path, "")]


def _split_of(name: str) -> Split:
    """Return the split named by the last part that names one: `val` for `training_data/val`."""
    for part in reversed(name.lower().split("/")):
        words = re.split(r"[^a-z0-9]+", part)
        for split, pattern in _SPLITS:
            if any(re.fullmatch(pattern, word) for word in words):
                return split
    return ""
