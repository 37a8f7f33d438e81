"""Label files as text: the beginning, for format detection, or the whole file, strictly decoded.

A label file comes from another person's tool or machine. A file that cannot be read or decoded is
one error with its line; nothing is guessed.

Limitations: knows no format (`molmo_tune.labels.formats`) and looks up no media
(`molmo_tune.labels.media_source`).
"""

from __future__ import annotations

from pathlib import Path

from molmo_tune.errors import UserError

HEAD_BYTES = 4_000_000
EXPORT_AGAIN = "export the file again"


def read_head(path: Path) -> str:
    """Return the beginning of a file, for format detection; undecodable bytes are replaced."""
    return _decoded(read_bytes(path, HEAD_BYTES), "replace")


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8 (or UTF-16 with a byte order mark).

    Raises:
        UserError: the file is empty or is not text in these encodings.
    """
    data = read_bytes(path)
    try:
        text = _decoded(data, "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"not UTF-8 text (byte {data[error.start]:#04x})"
        raise UserError(f"{path}:{line}", found, fix="save the file as UTF-8") from error
    if not text or text.isspace():
        raise UserError(path, "the file is empty", "labels", EXPORT_AGAIN)
    return text


def read_bytes(path: Path, count: int = -1) -> bytes:
    """Return the first `count` bytes of a file, by default all.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error


def _decoded(data: bytes, errors: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors)
    return data.decode("utf-8-sig", errors)
