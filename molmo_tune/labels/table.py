"""A plain table, CSV, JSONL or Parquet, a row per object; the recipe says what its columns mean.

    labels: table
    columns: {image: file, label: class, box: [x1, y1, x2, y2]}     or  point: [x, y]
    units: pixel          pixel, percent (0 to 100) or unit (0 to 1): never guessed from the values
    box: xyxy             xyxy, xywh (corner and size) or cxcywh (centre and size)

Rows of one image need not stand together. A row whose box or point is wholly empty says that the
image was looked at and is left out. The image is looked up by the name in its column, with the
endings of images tried where it has none. ``exhaustive_labels``: a table promises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from molmo_tune.errors import UserError
from molmo_tune.labels.images import (
    NEGATIVE,
    LostError,
    MakeShape,
    Objects,
    open_objects,
    with_endings,
)
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Point, Sample, Shape
from molmo_tune.labels.shapes import SizeWH
from molmo_tune.labels.table_rows import Row, table_rows
from molmo_tune.labels.tracks import NOT_A_NUMBER, numbers

Units = Literal["pixel", "percent", "unit"]
BoxStyle = Literal["xyxy", "xywh", "cxcywh"]
EMPTY = "an empty row: nothing there"


@dataclass(frozen=True, slots=True)
class TableLayout:
    """What the columns of a table mean.

    Args:
        image: column of the image's name.
        label: column of the class.
        shape: two columns of a point or four of a box.
        units: of the coordinates.
        box: what the four numbers of a box are.
    """

    image: str
    label: str
    shape: tuple[str, ...]
    units: Units
    box: BoxStyle = "xyxy"


def never_looks_like(_: str) -> bool:
    """Nothing tells a plain table apart from any other."""
    return False


def read_table(
    files: Sequence[Path], media: MediaSource, tally: Tally, layout: TableLayout | None = None
) -> list[Sample]:
    """One sample per image with objects, in the order of first appearance.

    Raises:
        UserError: there is no layout, a file is no table with these columns, or a name climbs out
            of the media folder.
    """
    if layout is None:
        raise UserError("labels", "a table without its columns", "columns and units in the recipe")
    images: dict[str, Objects] = {}
    for path in files:
        for place, row in table_rows(path, (layout.image, layout.label, *layout.shape)):
            name = str(row[layout.image] or "").strip()
            if name not in images:
                media.check_number(len(images) + 1, path)
                images[name] = open_objects(media, with_endings(name), place, None, tally)
            _add(row, layout, images[name], place)
    samples = [objects.sample() for objects in images.values()]
    return [sample for sample in samples if sample is not None]


def _add(row: Row, layout: TableLayout, objects: Objects, place: str) -> None:
    kind = "point" if len(layout.shape) == 2 else "box"
    label = str(row[layout.label] if row[layout.label] is not None else "").strip()
    cells = [row[name] for name in layout.shape]
    if all(cell in ("", None) for cell in cells):
        objects.read(label, kind).leave_out(EMPTY, place)
    else:
        objects.add(label, kind, place, _maker(cells, layout))


def _maker(cells: list[object], layout: TableLayout) -> MakeShape:
    def make(size_wh: SizeWH) -> Shape:
        values = numbers(cells)
        if values is None or any(isinstance(cell, bool) for cell in cells):
            raise LostError(NOT_A_NUMBER)
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
            raise LostError("a box with swapped corners")
        return x, y, third, fourth
    if third < 0 or fourth < 0:
        raise LostError(NEGATIVE)
    if box == "xywh":
        return x, y, x + third, y + fourth
    return x - third / 2, y - fourth / 2, x + third / 2, y + fourth / 2


READER = Reader(
    read_table, never_looks_like, "*.[cjp][as][rvo]*", "a plain table (CSV, JSONL, Parquet)"
)
