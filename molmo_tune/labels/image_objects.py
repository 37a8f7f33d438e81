"""Objects of one image, collected row by row.

All readers of image labels share this module. The image is looked up by name and its header opened,
because coordinates need its upright size. If the label file states a different size, the image is
dropped, not scaled: either it is a different image, or the tool ignored the EXIF orientation. Every
row is counted once: kept, clipped at the edge, skipped as its format defines, or dropped with a
reason. Rows of a missing image are dropped, too.

A label with a dropped row or a group stops being exhaustive, whatever its format promises. An
image without annotations or exhaustive labels is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from molmo_tune.errors import UserError
from molmo_tune.labels.geometry.shapes import SizeWH, fit, has_area
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource, MissingMediaError
from molmo_tune.labels.report import ClassTally, Tally
from molmo_tune.labels.sample import Instance, Media, Sample, Shape
from molmo_tune.labels.tracks import NO_AREA, NO_LABEL, NOT_A_NUMBER, OUTSIDE_FRAME, unique
from molmo_tune.media.image import image_size

MISSING_IMAGE = "image missing or unreadable"
OTHER_SIZE = "image size differs from the labels"
SIDES_SWAPPED = "labels ignore the image's EXIF orientation: width and height are swapped"
NO_ANNOTATIONS = "nothing annotated"
TOO_FEW_CORNERS = "polygon with fewer than three corners"
ABSENT = "outside: object absent"
NEGATIVE = "negative width or height"
GROUP = "group, not a single object"

_NUMBERS = frozenset((int, float))  # and not bool
_LISTS = (list, tuple)

MakeShape = Callable[[SizeWH], Shape]


class DroppedRowError(Exception):
    """Raised for a row that must be dropped; its text is the reason."""


@dataclass(frozen=True, slots=True)
class OpenImage:
    """An existing image and its upright size in pixels."""

    path: Path
    size_wh: SizeWH


class Objects:
    """Collector of the objects of one image.

    Args:
        image: the image, None if missing; all rows are then dropped.
        tally: counts every row.
        place: place of the image in the label file, for the report.
    """

    def __init__(self, image: OpenImage | None, tally: Tally, place: str) -> None:
        self._image, self._tally, self._place = image, tally, place
        self._instances: list[Instance] = []
        self._ids: dict[str, int] = {}
        self._incomplete: set[str] = set()

    def add(self, label: str, kind: str, place: str, make: MakeShape, id: str = "") -> bool:
        """Add one row and return whether it was kept.

        Args:
            label: class label.
            kind: name of the shape in the report.
            place: ``file:line`` or an id.
            make: returns the shape in pixels, given the image size; raises `DroppedRowError`.
            id: id of the object, if the file has one.
        """
        counts = self._tally.of(label, kind)
        counts.num_read += 1
        if self._image is None:
            return self._drop(counts, MISSING_IMAGE, place)
        if not label:
            return self._drop(counts, NO_LABEL, place)
        try:
            original = make(self._image.size_wh)
        except DroppedRowError as error:
            return self._drop(counts, str(error), place)
        shape, is_clipped = fit(original, self._image.size_wh)
        if shape is None:
            return self._drop(counts, OUTSIDE_FRAME if has_area(original) else NO_AREA, place)
        counts.keep(clipped=is_clipped)
        name = unique(id or str(len(self._instances)), self._ids)
        self._instances.append(Instance(name, label, shape))
        return True

    def drop(self, label: str, kind: str, place: str, reason: str) -> None:
        """Count a row as dropped."""
        self._drop(self.read(label, kind), reason, place)

    def skip(self, label: str, kind: str, place: str, reason: str) -> None:
        """Count a row that its format defines as not a single object."""
        self.read(label, kind).skip(reason, place)
        self._incomplete.add(label)

    def corrected(self, label: str, kind: str, reason: str, place: str) -> None:
        """Count a row that was changed in order to be kept."""
        self._tally.of(label, kind).correct(reason, place)

    def read(self, label: str, kind: str) -> ClassTally:
        """Count one row as read; return the counts of its label and kind."""
        counts = self._tally.of(label, kind)
        counts.read()
        return counts

    def sample(self, exhaustive: Iterable[str] = (), id: str = "") -> Sample | None:
        """Return the sample, or None (counted) without an image or annotations."""
        if self._image is None:
            return None
        complete = tuple(dict.fromkeys(x for x in exhaustive if x not in self._incomplete))
        counts = self._tally.of("", "image")
        if not self._instances and not complete:
            counts.skip(NO_ANNOTATIONS, self._place)
            return None
        counts.keep()
        media = Media("image", (self._image.path,), self._image.size_wh)
        return Sample(id or self._image.path.stem, media, tuple(self._instances), complete)

    @property
    def labels(self) -> list[str]:
        """Labels of the objects added so far."""
        return [instance.label for instance in self._instances]

    def _drop(self, counts: ClassTally, reason: str, place: str) -> Literal[False]:
        counts.drop(reason, place)
        self._incomplete.add(counts.label)
        return False


def open_objects(
    media: MediaSource, names: Sequence[str], place: str, stated: SizeWH | None, tally: Tally
) -> Objects:
    """Return the collector of an image; count the image as read, and as dropped if missing.

    Args:
        media: where to look for the image.
        names: possible file names, the most reliable first.
        place: place of the image in the label file.
        stated: width and height according to the label file.
        tally: counts the image.

    Raises:
        UserError: a name points outside the media folder.
    """
    counts = tally.of("", "image")
    counts.read()
    try:
        path = find_first(media, names, place)
        size = image_size(path)
    except MissingMediaError as error:
        counts.drop(f"{MISSING_IMAGE} ({error.found})", place)
        return Objects(None, tally, place)
    except UserError as error:
        if str(error.where) == place:
            raise
        counts.drop(f"{MISSING_IMAGE} ({error.found})", place)
        return Objects(None, tally, place)
    if stated is not None and stated != size:
        reason = SIDES_SWAPPED if stated == size[::-1] else OTHER_SIZE
        counts.drop(f"{reason} (labels {stated[0]}x{stated[1]}, image {size[0]}x{size[1]})", place)
        return Objects(None, tally, place)
    return Objects(OpenImage(path, size), tally, place)


def find_first(media: MediaSource, names: Sequence[str], place: str) -> Path:
    """Return the file of the first name that exists.

    Raises:
        MissingMediaError: none exists.
        UserError: a name points outside the media folder, or several files match.
    """
    missing = None
    for name in names:
        try:
            return media.find(name, place)
        except MissingMediaError as error:
            missing = missing or error
    raise missing or MissingMediaError(place, "the labels do not name the image")


def with_extensions(name: str) -> list[str]:
    """Return a name; without an image extension, also return it with each of them."""
    if not name or name.lower().endswith(IMAGE_SUFFIXES):
        return [name] if name else []
    return [name, *(name + suffix for suffix in IMAGE_SUFFIXES)]


def floats(values: object, count: int | None = None) -> list[float]:
    """Return the finite numbers of a JSON list.

    Raises:
        DroppedRowError: not a list of finite numbers, or not `count` of them.
    """
    if not isinstance(values, _LISTS) or (count is not None and len(values) != count):
        raise DroppedRowError(NOT_A_NUMBER)
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS:
        raise DroppedRowError(NOT_A_NUMBER)
    try:
        found = list(map(float, values) if int in kinds else values)
    except OverflowError as error:
        raise DroppedRowError(NOT_A_NUMBER) from error
    if not math.isfinite(sum(found)):
        raise DroppedRowError(NOT_A_NUMBER)
    return found


def spelled(texts: Iterable[str | None]) -> list[float]:
    """Return finite numbers that are written as text.

    Raises:
        DroppedRowError: a text is not a finite number.
    """
    try:
        found = [float(text) for text in texts if text is not None]
        are_finite = all(map(math.isfinite, found))
    except ValueError as error:
        raise DroppedRowError(NOT_A_NUMBER) from error
    if not are_finite:
        raise DroppedRowError(NOT_A_NUMBER)
    return found


def corners_of(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Return the corners of a polygon given as ``x1, y1, x2, y2, …``.

    Raises:
        DroppedRowError: an odd number of values, or fewer than three corners.
    """
    if len(values) % 2 or len(values) < 6:
        raise DroppedRowError(TOO_FEW_CORNERS)
    return tuple(zip(values[::2], values[1::2], strict=True))


def stated_size(width: object, height: object) -> SizeWH | None:
    """Return the size that a label file states, or None if missing, zero or not an integer."""
    if type(width) is int and type(height) is int:
        return (width, height) if 0 < width < 2**31 and 0 < height < 2**31 else None
    sizes = [v for v in (width, height) if type(v) in (int, float) and 0 < float(str(v)) < 2**31]
    if len(sizes) < 2 or any(value != int(float(str(value))) for value in sizes):
        return None
    return int(float(str(width))), int(float(str(height)))
