"""Rows of Parquet files, and of the Arrow files that ``Dataset.save_to_disk`` writes.

Both need ``pyarrow``, which comes with ``datasets`` and is not needed for anything else here. Rows
come batch by batch; where they hold pictures or other bytes the batches are small. Hugging Face's
features are kept in the schema: `class_names` finds what the numbers of a ``ClassLabel`` mean.
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
    """Rows with their places, ``file: row``.

    Args:
        path: the file.
        columns: those that are read; by default all.

    Raises:
        UserError: pyarrow is missing, or the file does not open.
    """
    number = 0
    for rows in _opened(path, lambda file: _batches(file, columns)):
        for row in rows:
            number += 1
            yield f"{path}: row {number}", row


def column_names(path: Path) -> list[str]:
    """Names of the columns.

    Raises:
        UserError: see `arrow_rows`.
    """
    names: list[str] = next(_opened(path, lambda file: iter([list(_schema(file).names)])))
    return names


def class_names(path: Path, column: str) -> tuple[str, ...]:
    """Names of the classes of a column (``objects.category``), empty when it states none.

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
    """The same, of features as `datasets` writes them."""
    feature = features
    try:
        for part in column.split("."):
            feature = _inside(feature)[part]
        names = _inside(feature)["names"]
    except (KeyError, TypeError, AttributeError, IndexError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else ()


def _inside(feature: Any) -> Any:
    """What a list is a list of: ``{"feature": …, "_type": "Sequence"}`` or a list of one."""
    while isinstance(feature, list) or feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return feature


def _opened(path: Path, use: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        ipc: Any = importlib.import_module("pyarrow.ipc")
    except ImportError as error:
        fix = "uv pip install pyarrow"
        found = f"{path.suffix.lstrip('.').capitalize()} files need pyarrow, which is missing"
        raise UserError(path, found, fix=fix) from error
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        open_file = parquet.ParquetFile if is_parquet else ipc.open_stream
        with path.open("rb") as stream, open_file(stream) as file:
            yield from use(file)
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        reason = " ".join(str(error).split())[:120]
        found = f"not {'a Parquet' if is_parquet else 'an Arrow'} file that opens ({reason})"
        raise UserError(path, found) from error


def _schema(file: Any) -> Any:
    return file.schema_arrow if hasattr(file, "schema_arrow") else file.schema


def _batches(file: Any, columns: Sequence[str] | None) -> Iterator[Any]:
    schema = _schema(file)
    wanted = list(schema.names if columns is None else columns)
    if not hasattr(file, "iter_batches"):
        for batch in file:
            yield _checked(batch.select(wanted))
        return
    has_bytes = any("binary" in str(schema.field(name).type) for name in wanted)
    rows = _BATCH_ROWS_WITH_BYTES if has_bytes else _BATCH_ROWS
    for batch in file.iter_batches(batch_size=rows, columns=wanted):
        yield _checked(batch)


def _checked(batch: Any) -> list[Row]:
    """Pyarrow trusts the lengths in a file: on damaged ones it read beyond its memory and died."""
    batch.validate(full=True)
    rows: list[Row] = batch.to_pylist()
    return rows
