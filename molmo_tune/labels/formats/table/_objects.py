"""Objects in the rows of a plain table: one per row, or several in lists.

    file,class,x1,y1,x2,y2                                          a CSV row is one object
    {"image": …, "objects": {"category": [0, 1], "bbox": [[…], […]]}}     a row with two objects

A nested column is named with a dot, ``objects.bbox``, whether the file has a list of objects or an
object of lists. All lists of a row must have the same length; a row with empty lists says that
the image has no objects. Numbers of a ``ClassLabel`` are replaced by their names.

Images inside the rows (``datasets``' ``Image``) are written to the media folder, once, under the
hash of their bytes. Without a media folder they are refused: nothing is written to a folder that
the user did not name.
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
from molmo_tune.labels.files.hub_rows import HubDataset, is_on_hub
from molmo_tune.labels.files.table_rows import Row, table_rows
from molmo_tune.labels.media_source import MediaSource

IMAGES_IN_ROWS = "the rows contain the images themselves"
_EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tiff"}
_NOT_AN_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

Object = tuple[str, str, object, list[object]]


def table_objects(
    path: Path, image: str, label: str, shape: Sequence[str], num_values: int, media: MediaSource
) -> Iterator[Object]:
    """Yield place, image name, class and numbers of every object.

    Args:
        path: the table.
        image: column of the image's name, or of the image.
        label: column of the class.
        shape: columns of the numbers, one for each or one for all.
        num_values: number of values per object.
        media: folder to which images in the rows are written.

    Raises:
        UserError: the file is not such a table, lists of a row differ in length, or the rows
            contain images and there is no media folder.
    """
    if is_on_hub(path):
        hub = HubDataset(path)
        rows, names = hub.rows(), names_in(hub.features, label)
        yield from _nested(rows, names, image, label, shape, num_values, media)
        return
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, ".jsonl"):
        for place, row in table_rows(path, (image, label, *shape)):
            if len(shape) != num_values:
                found = f"{len(shape)} columns for {num_values} numbers"
                raise UserError(path, found, f"{num_values} columns, because CSV has no lists")
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
        name = _image_name(_cell(row, image, place), media, place)
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
        raise UserError(place, f"no column {column!r}", "a column, or a nested one: a.b")
    return value[part]


def _split(
    label: Any, values: list[Any], num_values: int, place: str
) -> Iterator[tuple[object, list[object]]]:
    """Yield each object's class and numbers."""
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
        found = f"lists of {' and '.join(map(str, sorted(counts)))} entries in a row"
        raise UserError(place, found, "one entry per object in each list")
    for number, entries in enumerate(zip(*lists, strict=True)):
        kind = label[number] if isinstance(label, list) else label
        yield kind, _flat(list(entries), num_values)
    if not counts - {0}:
        yield "", [None] * num_values


def _flat(values: list[Any], num_values: int) -> list[object]:
    """Return `num_values` values; None for an empty object, invalid ones for a wrong count."""
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if values and all(value is None or value == "" for value in values):
        return [None] * num_values
    return values if len(values) == num_values else ["?"] * num_values


def _named(label: object, names: Sequence[str]) -> object:
    is_number = type(label) is int and 0 <= int(str(label)) < len(names)
    return names[int(str(label))] if is_number else label


def _image_name(value: Any, media: MediaSource, place: str) -> str:
    if isinstance(value, Mapping) and value.get("bytes"):
        value = value["bytes"]
    elif isinstance(value, Mapping):
        value = value.get("path")
    if isinstance(value, bytes):
        return _write_image(value, media, place)
    return str(value or "").strip()


def _write_image(content: bytes, media: MediaSource, place: str) -> str:
    """Return the file name of an image, after writing the file unless it exists."""
    if not media.given or media.path.is_file():
        fix = "give a media folder to write them to"
        raise UserError(place, IMAGES_IN_ROWS, fix=fix)
    name = hashlib.sha256(content).hexdigest()[:40] + _extension(content)
    file = media.path / name
    if not file.is_file():
        with atomic_file(file, sync=False) as part:
            part.write_bytes(content)
    return name


def _extension(content: bytes) -> str:
    try:
        with Image.open(BytesIO(content)) as image:
            return _EXTENSIONS.get(image.format or "", ".png")
    except _NOT_AN_IMAGE:
        return ".png"  # the image will not open later either, and is dropped then
