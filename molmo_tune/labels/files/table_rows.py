"""Rows of a CSV, JSONL, Parquet or Arrow file, one at a time, so they need not fit in memory.

The extension decides the kind of file. CSV cells are text, those of the other kinds are typed;
readers interpret the columns. A nested column is named with a dot, as in ``objects.bbox``; only the
outer column is looked up here.
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

DATASETS_METADATA = ("state.json", "dataset_info.json", "dataset_dict.json")
"""Files that `Dataset.save_to_disk` writes in addition to the rows."""


def table_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Yield rows with their places, ``file:line`` or ``file: row``.

    Args:
        path: the file.
        columns: required columns.

    Raises:
        UserError: the file cannot be read, is not such a table, or lacks a column.
    """
    suffix = path.suffix.lower()
    if path.name in DATASETS_METADATA:
        return iter(())
    if suffix in SUFFIXES:
        return _arrow_rows(path, columns)
    return _jsonl_rows(path, columns) if suffix == ".jsonl" else csv_rows(path, columns)


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Yield rows of a CSV file; see `table_rows`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            _check_columns(rows.fieldnames or (), columns, f"{path}:1")
            for row in rows:
                yield f"{path}:{rows.line_num}", row
    except (csv.Error, UnicodeError) as error:
        raise UserError(path, f"not CSV in UTF-8 ({error})") from error
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
        raise UserError(where, f"not valid JSON ({reason})", "one object per line") from error
    if not isinstance(row, dict):
        raise UserError(where, "not a JSON object", "one object per line")
    _check_columns(tuple(row), columns, where)
    return row


def _arrow_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    existing = column_names(path)
    _check_columns(existing, columns, str(path))
    outer = [name if name in existing else name.split(".", 1)[0] for name in columns]
    yield from arrow_rows(path, list(dict.fromkeys(outer)))


def _check_columns(names: Any, columns: tuple[str, ...], where: str) -> None:
    missing = [n for n in columns if n not in names and n.split(".", 1)[0] not in names]
    if missing:
        listed = ", ".join(map(str, names)) or "none"
        raise UserError(where, f"no column {missing[0]!r}", f"one of {listed[:200]}")
