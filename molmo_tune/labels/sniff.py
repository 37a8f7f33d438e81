"""What is this file? Each format is asked about its beginning, and one must say yes.

Where several do the user is asked, never guessed for. A file of no format that is read gets the
reason where we know one: an archive, a tool's own settings, a format to be exported anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_head
from molmo_tune.labels.reader import Reader

_NOT_READ = {
    "a zip archive; unpack it first": r"\APK\x03\x04",
    "a YOLO data.yaml: name the folder with its labels": r"(?m)\A[^{<]*^(names|nc)\s*:",
    "a packed archive; unpack it first": r"\A(\x1f\ufffd\x08|BZh|7z\ufffd|Rar!|[\s\S]{257}ustar)",
    "COCO JSON with videos": r'\A\s*\{[\s\S]*"videos"\s*:\s*\[\s*\{',
    "Datumaro JSON, which is not read: export COCO or CVAT instead": r'"categories"\s*:\s*\{',
    "a pickle, which can run programs: only format: tapvid_trusted reads one": r"\A\ufffd[\2-\5]",
    "settings of Label Studio: export the annotations as JSON": r"\A\s*<View",
    "detections of a model without its truth": r'"(results|track_bboxes)"\s*:\s*[\[{]',
    "Label Studio without regions that are read": r'"(from|to)_name"\s*:',
}


def format_of(path: Path, readers: Mapping[str, Reader]) -> str:
    """Name of the format of a label file, or of the label files in a folder.

    Raises:
        UserError: no such file, or its format is none or several of those that are known.
    """
    found = [name for name, reader in readers.items() if _is_of(reader, path)]
    if len(found) == 1:
        return found[0]
    if "jsonl" in found and path.is_file():  # it names itself; its labels may be any words
        return "jsonl"
    if found:
        fix = "name it: --format NAME, or format: NAME in the recipe"
        raise UserError(path, f"could be {' or '.join(found)}", "one format", fix)
    other = "" if path.is_dir() else _other_format(read_head(path))
    what = f"looks like {other}" if other else "not a label format that is known"
    raise UserError(path, what, f"one of {', '.join(readers)}")


def label_files(path: Path, pattern: str) -> list[Path]:
    """The file, or the files of a folder.

    Raises:
        UserError: there is none, or the file is empty.
    """
    if path.is_file():
        if not path.stat().st_size:
            raise UserError(path, "the file is empty", "labels", "export the file again")
        return [path]
    if not path.is_dir():
        raise UserError(path, "no such label file or folder", fix="check path in the recipe")
    files = _inside(path, pattern)
    if not files:
        raise UserError(
            path, f"no {pattern} in this folder", "label files", "check path and format"
        )
    return files


def check_format(format: str, file: Path, readers: Mapping[str, Reader]) -> None:
    """Say what a file is that is clearly of another format; else the reader finds the fault.

    Raises:
        UserError: it is of another.
    """
    head = read_head(file)
    if readers[format].by_name_only or readers[format].looks_like(head):
        return
    others = [name for name, reader in readers.items() if reader.looks_like(head)]
    what = f"format: {others[0]}" if others else _other_format(head)
    if what:
        expected = readers[format].title
        raise UserError(file, f"looks like {what}", expected, "check format and path in the recipe")


def _is_of(reader: Reader, path: Path) -> bool:
    files = _inside(path, reader.pattern) if path.is_dir() else label_files(path, reader.pattern)
    return any(reader.looks_like(read_head(file)) for file in files)


def _inside(folder: Path, pattern: str) -> list[Path]:
    """Hidden files, such as those that other systems leave behind, are passed over."""
    found = (path for path in folder.glob(pattern) if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _other_format(head: str) -> str:
    return next((name for name, sign in _NOT_READ.items() if re.search(sign, head)), "")
