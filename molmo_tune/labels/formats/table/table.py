"""Plain table (CSV, JSONL, Parquet or saved by ``datasets``); the recipe names its columns.

    format: table
    columns: {image: file, label: class, box: [x1, y1, x2, y2]}     or  point: [x, y]
    units: pixel          pixel, percent (0 to 100) or unit (0 to 1)
    box: xyxy             xyxy, xywh (corner and size) or cxcywh (center and size)

The path can also be a dataset on the Hub, ``hf://OWNER/NAME`` (`files.hub_rows`). A row is an
object, or has lists of objects (`formats.table._objects`):

    columns: {image: image, label: objects.category, box: [objects.bbox]}

Coordinates: in `units`, from the top left; units are never guessed from the values.
Objects: rows of an image can be anywhere in the table, so all rows are read, and stored as numbers,
    before the first sample is returned.
Media: the name in the image column; if it has no image extension, all of them are tried. Images
    inside the rows are written to the media folder.
Skipped: rows whose box or point is empty: the image has no objects.
Dropped: rows with a missing or invalid number, or with an invalid box.
Exhaustive labels: none.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from molmo_tune.choices import BoxStyle, Units
from molmo_tune.errors import UserError
from molmo_tune.labels.formats.table._objects import table_objects
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import (
    NEGATIVE,
    DroppedRowError,
    MakeShape,
    Objects,
    open_objects,
    with_extensions,
)
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Point, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER, numbers
from molmo_tune.recipe.sections import Columns, DataSource

EMPTY = "empty row: no object"


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Meaning of the columns of a table.

    Args:
        image: column of the image's name.
        label: column of the class.
        shape: two columns of a point or four of a box, or one column with a list of these numbers.
        units: units of the coordinates.
        box: meaning of the four numbers of a box.
        is_point: whether a single column contains points, not boxes.
    """

    image: str
    label: str
    shape: tuple[str, ...]
    units: Units
    box: BoxStyle = "xyxy"
    is_point: bool = False

    @property
    def num_values(self) -> int:
        """Number of values per object."""
        return 2 if self.is_point or len(self.shape) == 2 else 4


def matches_nothing(_: str) -> bool:
    """Return False: a plain table has no distinguishing mark."""
    return False


def layout_of(source: DataSource) -> TableLayout | None:
    """Return the meaning of a plain table's columns, None for other formats.

    Raises:
        UserError: a table whose columns are not all named, or columns for a different format.
    """
    columns, units = source.columns, source.units
    if source.format != "table":
        if columns != Columns() or units is not None:
            found = f"columns or units with format {source.format}"
            raise UserError(source.path, found, "them only with format table", "remove them")
        return None
    shape = columns.box or columns.point
    is_complete = (len(columns.box), len(columns.point)) in ((4, 0), (0, 2), (1, 0), (0, 1))
    if columns.image is None or columns.label is None or units is None or not is_complete:
        expected = "units, and columns for image, label and either box (4 or 1) or point (2 or 1)"
        raise UserError(source.path, "a table without columns or units", expected)
    is_point = bool(columns.point)
    return TableLayout(columns.image, columns.label, shape, units, source.box, is_point)


@dataclass(slots=True)
class _Image:
    """Rows of one image as arrays, in a tenth of the memory of Python objects.

    A state is 1 for a row with all its numbers, 0 for an empty row, -1 for an invalid one.
    """

    name: str
    file: str
    labels: array[int] = field(default_factory=lambda: array("L"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    states: array[int] = field(default_factory=lambda: array("b"))
    values: array[float] = field(default_factory=lambda: array("d"))


def read_table(
    files: Sequence[Path], media: MediaSource, tally: Tally, layout: TableLayout | None = None
) -> Iterator[Sample]:
    """Yield one sample per image with objects, in the order of first appearance.

    Raises:
        UserError: there is no layout, a file is not a table with these columns, or a name points
            outside the media folder.
    """
    if layout is None:
        raise UserError("format", "a table without columns", "columns and units")
    images: dict[tuple[str, str], _Image] = {}
    labels: dict[str, int] = {}
    for path in files:
        for place, name, label, cells in table_objects(
            path, layout.image, layout.label, layout.shape, layout.num_values, media
        ):
            file = place.rstrip("0123456789")
            image = images.get((name, file)) or images.setdefault((name, file), _Image(name, file))
            media.check_single_file(len(images), path)
            _store(label, cells, image, labels, int(place[len(file) :]))
    names = tuple(labels)
    for parts in _by_name(images.values()):
        first = parts[0]
        place = f"{first.file}{first.places[0]}"
        objects = open_objects(media, with_extensions(first.name), place, None, tally)
        for part in parts:
            _add_rows(part, layout, names, objects)
        sample = objects.sample()
        if sample is not None:
            yield sample


def _by_name(images: Iterable[_Image]) -> list[list[_Image]]:
    """Group the rows of an image across files."""
    groups: dict[str, list[_Image]] = {}
    for image in images:
        groups.setdefault(image.name, []).append(image)
    return list(groups.values())


def _store(
    value: object, cells: list[object], image: _Image, labels: dict[str, int], number: int
) -> None:
    label = str(value if value is not None else "").strip()
    is_empty = all(cell in ("", None) for cell in cells)
    values = None if any(isinstance(cell, bool) for cell in cells) else numbers(cells)
    image.labels.append(labels.setdefault(label, len(labels)))
    image.places.append(number)
    image.states.append(0 if is_empty else -1 if values is None else 1)
    image.values.extend(values if values is not None and not is_empty else (0.0,) * len(cells))


def _add_rows(image: _Image, layout: TableLayout, names: Sequence[str], objects: Objects) -> None:
    size = layout.num_values
    kind = "point" if size == 2 else "box"
    rows = zip(image.labels, image.places, image.states, strict=True)
    for number, (label, line, state) in enumerate(rows):
        place = f"{image.file}{line}"
        if state == 0:
            objects.read(names[label], kind).skip(EMPTY, place)
        elif state < 0:
            objects.drop(names[label], kind, place, NOT_A_NUMBER)
        else:
            values = tuple(image.values[number * size : (number + 1) * size])
            objects.add(names[label], kind, place, _maker(values, layout))


def _maker(values: tuple[float, ...], layout: TableLayout) -> MakeShape:
    def make(size_wh: SizeWH) -> Shape:
        scale = _SCALES[layout.units]
        across, down = scale(size_wh[0]), scale(size_wh[1])
        if len(values) == 2:
            return Point((values[0] * across, values[1] * down))
        left, top, right, bottom = _corners(values, layout.box)
        return Box((left * across, top * down, right * across, bottom * down))

    return make


_SCALES: dict[Units, Callable[[int], float]] = {
    "pixel": lambda _: 1.0,
    "percent": lambda side: side / 100,
    "unit": float,
}


def _corners(values: tuple[float, ...], box: BoxStyle) -> tuple[float, float, float, float]:
    x, y, third, fourth = values
    if box == "xyxy":
        if third < x or fourth < y:
            raise DroppedRowError("box with swapped corners")
        return x, y, third, fourth
    if third < 0 or fourth < 0:
        raise DroppedRowError(NEGATIVE)
    if box == "xywh":
        return x, y, x + third, y + fourth
    return x - third / 2, y - fourth / 2, x + third / 2, y + fourth / 2


READER = Reader(
    read_table,
    matches_nothing,
    "*.[acjp][ars][rvo]*",
    "a plain table (CSV, JSONL, Parquet, or saved by datasets)",
)
