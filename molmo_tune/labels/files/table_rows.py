"""Rows of a CSV, JSONL, Parquet or Arrow file, one at a time: a million rows are never held.

The kind of file goes by its ending. Cells of CSV are text, those of the others have types; what a
column means is the reader's business. A column inside another is named with a dot, as in
``objects.bbox``; here only the outer one is looked for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.arrow_rows import SUFFIXES, arrow_rows, column_names

Row = Mapping[str, Any]

SAVED_BESIDE = ("state.json", "dataset_info.json", "dataset_dict.json")
"""What `Dataset.save_to_disk` writes beside the files of rows."""


def table_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Rows with their places, ``file:line`` or ``file: row``.

    Args:
        path: the file.
        columns: those that must be there.

    Raises:
        UserError: the file cannot be read, is no such table, or lacks a column.
    """
    suffix = path.suffix.lower()
    if path.name in SAVED_BESIDE:
        return iter(())
    if suffix in SUFFIXES:
        return _arrow_rows(path, columns)
    return _jsonl_rows(path, columns) if suffix == ".jsonl" else csv_rows(path, columns)


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Rows of a CSV file; see `table_rows`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            _check_columns(rows.fieldnames or (), columns, f"{path}:1")
            for row in rows:
                yield f"{path}:{rows.line_num}", row
    except (csv.Error, UnicodeError) as error:
        raise UserError(path, f"not UTF-8 text in CSV ({error})") from error
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error


def _jsonl_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _object(line, columns, f"{path}:{number}")
    except UnicodeError as error:
        raise UserError(path, f"not UTF-8 text ({error})") from error
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error


def _object(line: str, columns: tuple[str, ...], where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise UserError(where, f"not valid JSON ({reason})", "an object per line") from error
    if not isinstance(row, dict):
        raise UserError(where, "no object", "an object per line")
    _check_columns(tuple(row), columns, where)
    return row


def _arrow_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    known = column_names(path)
    _check_columns(known, columns, str(path))
    outer = [name if name in known else name.split(".", 1)[0] for name in columns]
    yield from arrow_rows(path, list(dict.fromkeys(outer)))


def _check_columns(names: Any, columns: tuple[str, ...], where: str) -> None:
    missing = [n for n in columns if n not in names and n.split(".", 1)[0] not in names]
    if missing:
        listed = ", ".join(map(str, names)) or "none"
        raise UserError(where, f"no column {missing[0]!r}", f"columns; there are {listed[:200]}")
