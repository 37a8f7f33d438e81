"""Rows of a CSV, JSONL or Parquet file, one at a time: a table of a million rows is never held.

The kind of file goes by its ending. Cells of CSV are text, those of JSONL and Parquet have types;
what a column means is the reader's business. Parquet needs ``pyarrow``, which comes with
``datasets`` and is not needed for anything else here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError

Row = Mapping[str, Any]


def table_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Rows with their places, ``file:line`` or ``file: row``.

    Args:
        path: the file.
        columns: those that must be there.

    Raises:
        UserError: the file cannot be read, is no such table, or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path, columns)
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


def _parquet_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        fix = "uv pip install pyarrow"
        raise UserError(path, "Parquet files need pyarrow, which is missing", fix=fix) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(file.schema_arrow.names, columns, str(path))
            for batch in file.iter_batches(batch_size=4096, columns=list(columns)):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(path, f"not a Parquet file that opens ({reason})") from error


def _check_columns(names: Any, columns: tuple[str, ...], where: str) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        listed = ", ".join(map(str, names)) or "none"
        raise UserError(where, f"no column {missing[0]!r}", f"columns; there are {listed[:200]}")
