"""Rows of PixMo-Points and PixMo-Count: points per image and label, in Parquet or JSONL.

The two datasets differ in how points are written, and *in their units*: percent in PixMo-Points,
pixels in PixMo-Count. So each has its own format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from molmo_tune.errors import UserError
from molmo_tune.labels.files.table_rows import Row, table_rows
from molmo_tune.labels.geometry.shapes import XY, SizeWH
from molmo_tune.labels.image_objects import DroppedRowError, Objects, open_objects, with_extensions
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Point, Sample, Shape

COLUMNS = ("image_url", "image_sha256", "label", "count", "points")
NO_POINTS = "a count without points"
LARGEST_PERCENT = 110.0
MOVED = "a point outside the image was moved to its edge"
OTHER_COUNT = "count and number of points differ: the label is not exhaustive"


@dataclass(slots=True)
class _Image:
    objects: Objects
    complete: list[str] = field(default_factory=list)


def looks_like_pixmo(head: str, bracket: str) -> bool:
    """Return whether the head of a file looks like PixMo's JSONL with points in this bracket.

    Parquet files are not recognized: their column names are at the end.
    """
    first = head.lstrip().split("\n", 1)[0]
    is_row = first.startswith("{") and '"image_url"' in first
    return is_row and f'"points":{bracket}' in head.replace('"points": ', '"points":')


def read_pixmo(
    files: Sequence[Path],
    media: MediaSource,
    tally: Tally,
    points_of: Callable[[object], list[XY]],
    *,
    percent: bool,
) -> list[Sample]:
    """Return one sample per image, in order of first appearance.

    Args:
        files: Parquet or JSONL files.
        media: the folder of the images.
        tally: counts every point.
        points_of: the points of a row's ``points``, as ``(x, y)``.
        percent: whether points are percent of width and height; else they are pixels.

    Raises:
        UserError: a file is not such a table, or a coordinate in percent is above 110.
    """
    images: dict[str, _Image] = {}
    for path in files:
        for place, row in table_rows(path, COLUMNS):
            names = _names(row)
            key = names[0] if names else place
            if key not in images:
                media.check_single_file(len(images) + 1, path)
                images[key] = _Image(open_objects(media, names, place, None, tally))
            _add(row, images[key], points_of, percent, place, tally)
    samples = [image.objects.sample(image.complete) for image in images.values()]
    return [sample for sample in samples if sample is not None]


def _names(row: Row) -> list[str]:
    """Return possible names of the image: its SHA-256, then the last part of its URL."""
    url = row["image_url"] if isinstance(row["image_url"], str) else ""
    try:
        last = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    except ValueError:
        last = ""
    sha = row["image_sha256"] if isinstance(row["image_sha256"], str) else ""
    return [
        name for text in (sha, last) if text not in ("", "..") for name in with_extensions(text)
    ]


def _add(
    row: Row,
    image: _Image,
    points_of: Callable[[object], list[XY]],
    percent: bool,
    place: str,
    tally: Tally,
) -> None:
    label = row["label"].strip() if isinstance(row["label"], str) else ""
    try:
        points = points_of(row["points"])
    except DroppedRowError as lost:
        image.objects.drop(label, "point", place, str(lost))
        return
    if percent:
        points = _clipped(points, label, image.objects, place)
    count = row["count"]
    if not points and count:
        image.objects.drop(label, "count", place, NO_POINTS)
        return
    for x, y in points:

        def make(size_wh: SizeWH, x: float = x, y: float = y) -> Shape:
            return Point((x * size_wh[0] / 100, y * size_wh[1] / 100) if percent else (x, y))

        image.objects.add(label, "point", place, make)
    if count == len(points) and label:
        image.complete.append(label)
    else:
        tally.note(OTHER_COUNT, place)


def _clipped(points: list[XY], label: str, objects: Objects, place: str) -> list[XY]:
    clipped = []
    for x, y in points:
        if max(x, y) > LARGEST_PERCENT:
            raise UserError(place, f"a coordinate of {max(x, y):g}", "percent, as in Ai2's loader")
        inside = (min(max(x, 0.0), 100.0), min(max(y, 0.0), 100.0))
        if inside != (x, y):
            objects.corrected(label, "point", MOVED, place)
        clipped.append(inside)
    return clipped
