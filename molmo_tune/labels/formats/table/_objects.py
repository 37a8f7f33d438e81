"""The objects in the rows of a plain table: one to a row, or several in lists.

    file,class,x1,y1,x2,y2                                          a row of CSV is one object
    {"image": …, "objects": {"category": [0, 1], "bbox": [[…], […]]}}         one of a data set two

A column inside another is named with a dot, ``objects.bbox``, whether the file keeps a list of
objects or an object of lists. Columns of one row must have as many entries as each other; a row
without entries says that nothing is there. Numbers of a ``ClassLabel`` become their names.

Pictures that lie in the rows themselves (``datasets``' ``Image``) are written into the media
folder, once, under the hash of their bytes; without a media folder they are refused, since a folder
that nobody named is no place to write to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from molmo_tune.atomic_files import atomic_file
from molmo_tune.errors import UserError
from molmo_tune.labels.files.arrow_rows import SUFFIXES, class_names, names_in
from molmo_tune.labels.files.hub_rows import HubTable, is_on_hub
from molmo_tune.labels.files.table_rows import Row, table_rows
from molmo_tune.labels.media_source import MediaSource

IN_THE_ROWS = "the pictures are inside the rows"
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tiff"}
_NO_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

Object = tuple[str, str, object, list[object]]


def table_objects(
    path: Path, image: str, label: str, shape: Sequence[str], num_values: int, media: MediaSource
) -> Iterator[Object]:
    """Place, name of the image, class and numbers of every object.

    Args:
        path: the table.
        image: column of the image's name, or of the image.
        label: column of the class.
        shape: columns of the numbers, one for each or one for all.
        num_values: numbers of an object.
        media: where pictures in the rows are written to.

    Raises:
        UserError: the file is no such table, lists have other lengths than others, or pictures are
            in the rows and there is no media folder.
    """
    if is_on_hub(path):
        hub = HubTable(path)
        rows, names = hub.rows(), names_in(hub.features, label)
        yield from _nested(rows, names, image, label, shape, num_values, media)
        return
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, ".jsonl"):
        for place, row in table_rows(path, (image, label, *shape)):
            if len(shape) != num_values:
                found = f"{len(shape)} columns for {num_values} numbers"
                raise UserError(path, found, f"{num_values} columns: text has no lists")
            yield place, str(row[image] or "").strip(), row[label], [row[name] for name in shape]
        return
    names = class_names(path, label) if suffix in SUFFIXES else ()
    rows = table_rows(path, (image, label, *shape))
    yield from _nested(rows, names, image, label, shape, num_values, media)


def _nested(
    rows: Iterator[tuple[str, Row]],
    names: Sequence[str],
    image: str,
    label: str,
    shape: Sequence[str],
    num_values: int,
    media: MediaSource,
) -> Iterator[Object]:
    for place, row in rows:
        name = _picture_name(_cell(row, image, place), media, place)
        values = [_cell(row, column, place) for column in shape]
        for kind, numbers in _split(_cell(row, label, place), values, num_values, place):
            yield place, name, _named(kind, names), numbers


def _cell(row: Row, column: str, place: str) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = _step(value, part, column, place)
    return value


def _step(value: Any, part: str, column: str, place: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_step(entry, part, column, place) for entry in value]
    if not isinstance(value, Mapping) or part not in value:
        raise UserError(place, f"no column {column!r}", "a column, or one inside another: a.b")
    return value[part]


def _split(
    label: Any, values: list[Any], num_values: int, place: str
) -> Iterator[tuple[object, list[object]]]:
    """Each object's class and numbers."""
    is_many = isinstance(label, list) or all(
        isinstance(value, list) and (len(values) > 1 or isinstance((value or [[]])[0], list))
        for value in values
    )
    if not is_many:
        yield label, _flat(values, num_values)
        return
    lists = [value if isinstance(value, list) else [] for value in values]
    counts = {len(entries) for entries in [*lists, *([label] if isinstance(label, list) else [])]}
    if len(counts) > 1:
        found = f"lists of {' and '.join(map(str, sorted(counts)))} entries in one row"
        raise UserError(place, found, "one entry for each object")
    for number, entries in enumerate(zip(*lists, strict=True)):
        kind = label[number] if isinstance(label, list) else label
        yield kind, _flat(list(entries), num_values)
    if not counts - {0}:
        yield "", [None] * num_values


def _flat(values: list[Any], num_values: int) -> list[object]:
    """One number for each; of what is none, as many that are none."""
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if values and all(value is None or value == "" for value in values):
        return [None] * num_values
    return values if len(values) == num_values else ["?"] * num_values


def _named(label: object, names: Sequence[str]) -> object:
    known = type(label) is int and 0 <= int(str(label)) < len(names)
    return names[int(str(label))] if known else label


def _picture_name(value: Any, media: MediaSource, place: str) -> str:
    if isinstance(value, Mapping) and value.get("bytes"):
        value = value["bytes"]
    elif isinstance(value, Mapping):
        value = value.get("path")
    if isinstance(value, bytes):
        return _written(value, media, place)
    return str(value or "").strip()


def _written(content: bytes, media: MediaSource, place: str) -> str:
    """The name of the file that holds a picture; it is written if it is not there."""
    if not media.given or media.path.is_file():
        fix = "give a folder as media: they are written into it, once"
        raise UserError(place, IN_THE_ROWS, fix=fix)
    name = hashlib.sha256(content).hexdigest()[:40] + _ending(content)
    file = media.path / name
    if not file.is_file():
        with atomic_file(file, sync=False) as part:
            part.write_bytes(content)
    return name


def _ending(content: bytes) -> str:
    try:
        with Image.open(BytesIO(content)) as picture:
            return _ENDINGS.get(picture.format or "", ".png")
    except _NO_PICTURE:
        return ".png"  # it will not open later either, and is counted there
