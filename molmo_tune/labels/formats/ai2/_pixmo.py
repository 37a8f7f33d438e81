"""PixMo-Points and PixMo-Count of Ai2, as Parquet or JSONL: a row per image and label.

    PixMo-Points   image_url, image_sha256, label, count, points: [{"x": 50.1, "y": 20.3}, …]
    PixMo-Count    image_url, image_sha256, label, count, points: {"x": [310.5, …], "y": […]}

*Their units differ.* Points of PixMo-Points are percent of the image's width and height: Ai2's
loader, with which the model was trained, says so, its data card says pixels. Like the loader we
move a point a little outside to the edge (counted); a number above 110 contradicts the loader, and
the file is refused. Points of PixMo-Count are pixels. The images are
not in the files: put them into the media folder under their SHA-256, or the last part of their
address, with or without an ending.

``exhaustive_labels``: the annotators pointed at every object of a label, so a label is exhaustive
when its row has as many points as its ``count`` says, also when that is none. Rows of PixMo-Count
outside the training split have counts without points; those are losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from molmo_tune.errors import UserError
from molmo_tune.labels.files.table_rows import Row, table_rows
from molmo_tune.labels.geometry.shapes import XY, SizeWH
from molmo_tune.labels.image_objects import LostError, Objects, open_objects, with_endings
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Point, Sample, Shape

COLUMNS = ("image_url", "image_sha256", "label", "count", "points")
NO_POINTS = "a count without points"
LARGEST_PERCENT = 110.0
MOVED = "a point beyond the edge was moved to it"
OTHER_COUNT = "its count is not its number of points: the label is not exhaustive"


@dataclass(slots=True)
class _Image:
    objects: Objects
    complete: list[str] = field(default_factory=list)


def looks_like_pixmo(head: str, bracket: str) -> bool:
    """Whether this is JSONL of PixMo whose points open with that bracket.

    Parquet files name their columns at the end.
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
    """One sample per image, in the order of first appearance.

    Raises:
        UserError: a file is no such table, or a coordinate in percent is far above 100.
    """
    images: dict[str, _Image] = {}
    for path in files:
        for place, row in table_rows(path, COLUMNS):
            names = _names(row)
            key = names[0] if names else place
            if key not in images:
                media.check_number(len(images) + 1, path)
                images[key] = _Image(open_objects(media, names, place, None, tally))
            _add(row, images[key], points_of, percent, place, tally)
    samples = [image.objects.sample(image.complete) for image in images.values()]
    return [sample for sample in samples if sample is not None]


def _names(row: Row) -> list[str]:
    """What the image may be called: its SHA-256, then the last part of its address."""
    url = row["image_url"] if isinstance(row["image_url"], str) else ""
    try:
        last = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    except ValueError:
        last = ""
    sha = row["image_sha256"] if isinstance(row["image_sha256"], str) else ""
    return [name for text in (sha, last) if text not in ("", "..") for name in with_endings(text)]


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
    except LostError as lost:
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
    found = []
    for x, y in points:
        if max(x, y) > LARGEST_PERCENT:
            raise UserError(
                place, f"a coordinate of {max(x, y):g}", "percent, as Ai2's loader has it"
            )
        inside = (min(max(x, 0.0), 100.0), min(max(y, 0.0), 100.0))
        if inside != (x, y):
            objects.corrected(label, "point", MOVED, place)
        found.append(inside)
    return found
