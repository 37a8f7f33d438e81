"""Rows of Parquet files, and of the Arrow files that ``Dataset.save_to_disk`` writes.

Both need ``pyarrow``, which ``datasets`` installs and nothing else here needs. Rows are read in
batches, small ones if they contain images or other bytes. The schema keeps Hugging Face's features;
`class_names` looks up the class names of a ``ClassLabel`` column.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError

Row = Mapping[str, Any]

SUFFIXES = (".parquet", ".arrow")
_BATCH_ROWS, _BATCH_ROWS_WITH_BYTES = 4096, 32


def arrow_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Row]]:
    """Yield rows with their places, ``file: row``.

    Args:
        path: the file.
        columns: columns to read; by default all.

    Raises:
        UserError: pyarrow is not installed, or the file does not open.
    """
    number = 0
    for rows in _opened(path, lambda file: _batches(file, columns)):
        for row in rows:
            number += 1
            yield f"{path}: row {number}", row


def column_names(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        UserError: see `arrow_rows`.
    """
    names: list[str] = next(_opened(path, lambda file: iter([list(_schema(file).names)])))
    return names


def class_names(path: Path, column: str) -> tuple[str, ...]:
    """Return the class names of a column (``objects.category``), empty if it states none.

    Raises:
        UserError: see `arrow_rows`.
    """
    schema = next(_opened(path, lambda file: iter([_schema(file)])))
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return names_in(features, column)


def names_in(features: Any, column: str) -> tuple[str, ...]:
    """Return the class names of a column, from features as `datasets` writes them."""
    feature = features
    try:
        for part in column.split("."):
            feature = _element_of(feature)[part]
        names = _element_of(feature)["names"]
    except (KeyError, TypeError, AttributeError, IndexError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else ()


def _element_of(feature: Any) -> Any:
    """Return the element feature of a list: ``{"feature": …, "_type": "Sequence"}`` or ``[…]``."""
    while isinstance(feature, list) or feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return feature


def _opened(path: Path, use: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        ipc: Any = importlib.import_module("pyarrow.ipc")
    except ImportError as error:
        fix = "install it: uv pip install pyarrow"
        found = f"{path.suffix.lstrip('.').capitalize()} files need pyarrow, which is not installed"
        raise UserError(path, found, fix=fix) from error
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        open_file = parquet.ParquetFile if is_parquet else ipc.open_stream
        with path.open("rb") as stream, open_file(stream) as file:
            yield from use(file)
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many types
        reason = " ".join(str(error).split())[:120]
        found = f"not a readable {'Parquet' if is_parquet else 'Arrow'} file ({reason})"
        raise UserError(path, found, fix="export or download it again") from error


def _schema(file: Any) -> Any:
    return file.schema_arrow if hasattr(file, "schema_arrow") else file.schema


def _batches(file: Any, columns: Sequence[str] | None) -> Iterator[Any]:
    schema = _schema(file)
    names = list(schema.names if columns is None else columns)
    if not hasattr(file, "iter_batches"):
        for batch in file:
            yield _validated(batch.select(names))
        return
    has_bytes = any("binary" in str(schema.field(name).type) for name in names)
    rows = _BATCH_ROWS_WITH_BYTES if has_bytes else _BATCH_ROWS
    for batch in file.iter_batches(batch_size=rows, columns=names):
        yield _validated(batch)


def _validated(batch: Any) -> list[Row]:
    """Return the rows of a valid batch; pyarrow crashed on damaged lengths it did not validate."""
    batch.validate(full=True)
    rows: list[Row] = batch.to_pylist()
    return rows
