"""Format detection by the beginning of a file; exactly one format must match.

If several match, the user must choose; nothing is guessed. For a file of an unsupported format, the
error says what it looks like, if known: an archive, a tool's settings, a format to export again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_head
from molmo_tune.labels.reader import Reader

LIST_FORMATS = "run molmo-tune formats for the list"

_UNPACK = "unpack it first"
_UNSUPPORTED = (  # what a file is, its pattern, and what to do
    ("a zip archive", r"\APK\x03\x04", _UNPACK),
    (
        "a YOLO data.yaml",
        r"(?m)\A[^{<]*^(names|nc)\s*:",
        "give the folder that contains its labels",
    ),
    (
        "a compressed archive",
        r"\A(\x1f\ufffd\x08|BZh|7z\ufffd|Rar!|[\s\S]{257}ustar)",
        _UNPACK,
    ),
    ("COCO JSON with videos", r'\A\s*\{[\s\S]*"videos"\s*:\s*\[\s*\{', ""),
    ("Datumaro JSON", r'"categories"\s*:\s*\{', "export COCO or CVAT instead"),
    (
        "a pickle, which can run code",
        r"\A\ufffd[\2-\5]",
        "if you trust it, name the one format that reads pickles, tapvid_trusted",
    ),
    ("a Label Studio labeling config", r"\A\s*<View", "export the annotations as JSON"),
    ("model detections without ground truth", r'"(results|track_bboxes)"\s*:\s*[\[{]', ""),
    ("Label Studio JSON without supported regions", r'"(from|to)_name"\s*:', ""),
)


def format_of(path: Path, readers: Mapping[str, Reader]) -> str:
    """Return the format name of a label file, or of the label files in a folder.

    Raises:
        UserError: no such file, or no format or several formats match.
    """
    found = [name for name, reader in readers.items() if _matches(reader, path)]
    if len(found) == 1:
        return found[0]
    if "jsonl" in found and path.is_file():  # it states its format; its labels can be any text
        return "jsonl"
    if found:
        raise UserError(path, f"could be {' or '.join(found)}", "one format", "pass --format NAME")
    what, fix = ("", "") if path.is_dir() else _unsupported(read_head(path))
    found_here = f"looks like {what}" if what else "unknown label format"
    raise UserError(path, found_here, "a supported format", fix or LIST_FORMATS)


def label_files(path: Path, pattern: str) -> list[Path]:
    """Return the file, or the matching files of a folder.

    Raises:
        UserError: there are none, or the file is empty.
    """
    if path.is_file():
        if not path.stat().st_size:
            raise UserError(path, "the file is empty", "labels", "export the file again")
        return [path]
    if not path.is_dir():
        raise UserError(path, "no such label file or folder", fix="check the path")
    files = _inside(path, pattern)
    if not files:
        fix = "check the path and the format"
        raise UserError(path, f"no {pattern} in this folder", "label files", fix)
    return files


def check_format(format: str, file: Path, readers: Mapping[str, Reader]) -> None:
    """Refuse a file that clearly has a different format; other errors are left to the reader.

    Raises:
        UserError: the file has a different format.
    """
    head = read_head(file)
    if readers[format].by_name_only or readers[format].looks_like(head):
        return
    others = [name for name, reader in readers.items() if reader.looks_like(head)]
    what, fix = (f"format {others[0]}", "") if others else _unsupported(head)
    if what:
        expected = readers[format].title
        raise UserError(
            file, f"looks like {what}", expected, fix or "check the path and the format"
        )


def _matches(reader: Reader, path: Path) -> bool:
    files = _inside(path, reader.pattern) if path.is_dir() else label_files(path, reader.pattern)
    return any(reader.looks_like(read_head(file)) for file in files)


def _inside(folder: Path, pattern: str) -> list[Path]:
    """Return the matching files, except hidden ones (which some systems create)."""
    found = (path for path in folder.glob(pattern) if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _unsupported(head: str) -> tuple[str, str]:
    """Return what a file of an unsupported format is, and what to do; empty if unknown."""
    matches = ((what, fix) for what, pattern, fix in _UNSUPPORTED if re.search(pattern, head))
    return next(matches, ("", ""))
