"""Rows of Ai2's Molmo 2 video datasets on disk: JSON, JSONL, Parquet, or saved by `datasets`.

``Dataset.save_to_disk`` writes a folder of ``.arrow`` files with the rows, and ``state.json`` and
``dataset_info.json`` next to them, which are skipped. The extension decides how a file is read.
Rows of one video are grouped across files; each format interprets the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.arrow_rows import arrow_rows
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.files.table_rows import DATASETS_METADATA, Row, table_rows

Placed = tuple[str, Row]
"""A row and its place in the file."""


def rows_by_video(
    files: Sequence[Path], columns: tuple[str, ...], keys: tuple[str, ...]
) -> dict[tuple[str, ...], list[Placed]]:
    """Return the rows of all files, grouped by their values in some columns.

    Args:
        files: JSON, JSONL, Parquet or Arrow files.
        columns: every row must have these.
        keys: columns to group by, which contain names of videos.

    Returns:
        Rows by values of `keys`, in order of first appearance.

    Raises:
        UserError: a file is not such a table, lacks a column, or a key is not text.
    """
    groups: dict[tuple[str, ...], list[Placed]] = {}
    for path in files:
        for place, row in _rows(path, columns):
            key = tuple(_text(row, name, place) for name in keys)
            groups.setdefault(key, []).append((place, row))
    return groups


def _text(row: Row, name: str, place: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value:
        raise UserError(place, f"{name} is not text", "the name of a video")
    return value


def _rows(path: Path, columns: tuple[str, ...]) -> Iterable[Placed]:
    suffix = path.suffix.lower()
    if path.name in DATASETS_METADATA:
        return ()
    if suffix == ".arrow":
        return _checked(arrow_rows(path), columns)
    if suffix == ".json":
        return _checked(_json_rows(path), columns)
    return _checked(table_rows(path, columns), columns)


def _checked(rows: Iterable[Placed], columns: tuple[str, ...]) -> Iterator[Placed]:
    for place, row in rows:
        missing = [name for name in columns if name not in row]
        if missing:
            raise UserError(place, f"no column {missing[0]!r}", ", ".join(columns))
        yield place, row


def _json_rows(path: Path) -> Iterator[Placed]:
    data = read_json(path)
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise UserError(path, "not a list of rows", "rows of a Molmo 2 dataset")
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(data, 1))
