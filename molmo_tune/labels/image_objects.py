"""The objects of one image, collected row by row, and the image they lie on.

What all readers of image labels share is here. An image is looked up by its name and opened as far
as its header: coordinates mean nothing without its upright size. If the label file states another
size the image is dropped, not scaled: either it is another image, or the tool ignored the camera's
orientation. Every row is counted once: kept, cut at the edge, dropped with a reason, or left out by
the meaning of its format. Rows of an image that is not there are losses as well.

A label of which a row was lost or stands for a group is no longer exhaustive, whatever the format
promises; an image of which nothing is known is left out.
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
SIDEWAYS = "labels ignore the image's EXIF orientation: width and height are swapped"
NOTHING_KNOWN = "nothing annotated"
TOO_FEW_CORNERS = "polygon with fewer than three corners"
NOT_THERE_AT_ALL = "outside: object absent"
NEGATIVE = "negative width or height"
GROUP = "group, not a single object"

_NUMBERS = frozenset((int, float))  # and not bool
_LISTS = (list, tuple)

MakeShape = Callable[[SizeWH], Shape]


class LostError(Exception):
    """A row that cannot be kept; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that is there."""

    path: Path
    size_wh: SizeWH


class Objects:
    """Collects the objects of one image.

    Args:
        picture: None when it is missing; its rows are then counted as lost.
        tally: counts every row.
        place: of the image in the label file.
    """

    def __init__(self, picture: Picture | None, tally: Tally, place: str) -> None:
        self._picture, self._tally, self._place = picture, tally, place
        self._found: list[Instance] = []
        self._taken: dict[str, int] = {}
        self._incomplete: set[str] = set()

    def add(self, label: str, kind: str, place: str, make: MakeShape, id: str = "") -> bool:
        """One row; whether it was kept.

        Args:
            label: its class.
            kind: word for its shape in the report.
            place: ``file:line`` or an id.
            make: the shape, given the size of the image; raises `LostError`.
            id: of the object, when the file has one.
        """
        counts = self._tally.of(label, kind)
        counts.num_read += 1
        if self._picture is None:
            return self._lose(counts, MISSING_IMAGE, place)
        if not label:
            return self._lose(counts, NO_LABEL, place)
        try:
            drawn = make(self._picture.size_wh)
        except LostError as lost:
            return self._lose(counts, str(lost), place)
        shape, cut = fit(drawn, self._picture.size_wh)
        if shape is None:
            return self._lose(counts, OUTSIDE_FRAME if has_area(drawn) else NO_AREA, place)
        counts.keep(clipped=cut)
        name = unique(id or str(len(self._found)), self._taken)
        self._found.append(Instance(name, label, shape))
        return True

    def drop(self, label: str, kind: str, place: str, reason: str) -> None:
        """A row that cannot be kept."""
        self._lose(self.read(label, kind), reason, place)

    def skip(self, label: str, kind: str, place: str, reason: str) -> None:
        """A row that by its format stands for no single object."""
        self.read(label, kind).skip(reason, place)
        self._incomplete.add(label)

    def corrected(self, label: str, kind: str, reason: str, place: str) -> None:
        """A row is kept, but not as it was drawn."""
        self._tally.of(label, kind).correct(reason, place)

    def read(self, label: str, kind: str) -> ClassTally:
        """The account of a label and kind, with one more row read."""
        counts = self._tally.of(label, kind)
        counts.read()
        return counts

    def sample(self, exhaustive: Iterable[str] = (), id: str = "") -> Sample | None:
        """The sample; None, and counted, when there is no image or nothing is known about it."""
        if self._picture is None:
            return None
        complete = tuple(dict.fromkeys(x for x in exhaustive if x not in self._incomplete))
        counts = self._tally.of("", "image")
        if not self._found and not complete:
            counts.skip(NOTHING_KNOWN, self._place)
            return None
        counts.keep()
        media = Media("image", (self._picture.path,), self._picture.size_wh)
        return Sample(id or self._picture.path.stem, media, tuple(self._found), complete)

    @property
    def labels(self) -> list[str]:
        """Labels of the objects so far."""
        return [instance.label for instance in self._found]

    def _lose(self, counts: ClassTally, reason: str, place: str) -> Literal[False]:
        counts.drop(reason, place)
        self._incomplete.add(counts.label)
        return False


def open_objects(
    media: MediaSource, names: Sequence[str], place: str, stated: SizeWH | None, tally: Tally
) -> Objects:
    """The collector of an image, which is counted here as read, and as dropped if it is not there.

    Args:
        media: where it lies.
        names: what it may be called, the most reliable first.
        place: of the image in the label file.
        stated: its size according to the label file.
        tally: counts it.

    Raises:
        UserError: a name climbs out of the media folder.
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
        reason = SIDEWAYS if stated == size[::-1] else OTHER_SIZE
        counts.drop(f"{reason} (labels {stated[0]}x{stated[1]}, image {size[0]}x{size[1]})", place)
        return Objects(None, tally, place)
    return Objects(Picture(path, size), tally, place)


def find_first(media: MediaSource, names: Sequence[str], place: str) -> Path:
    """The file of the first name for which there is one.

    Raises:
        MissingMediaError: there is none.
        UserError: a name climbs out of the media folder, or several files fit.
    """
    missing = None
    for name in names:
        try:
            return media.find(name, place)
        except MissingMediaError as error:
            missing = missing or error
    raise missing or MissingMediaError(place, "the labels name no image")


def with_endings(name: str) -> list[str]:
    """A name, and where it has no ending of an image also with each of them."""
    if not name or name.lower().endswith(IMAGE_SUFFIXES):
        return [name] if name else []
    return [name, *(name + suffix for suffix in IMAGE_SUFFIXES)]


def floats(values: object, count: int | None = None) -> list[float]:
    """Finite numbers of a JSON list.

    Raises:
        LostError: it is no list of them, or not of so many.
    """
    if not isinstance(values, _LISTS) or (count is not None and len(values) != count):
        raise LostError(NOT_A_NUMBER)
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS:
        raise LostError(NOT_A_NUMBER)
    try:
        found = list(map(float, values) if int in kinds else values)
    except OverflowError as error:
        raise LostError(NOT_A_NUMBER) from error
    if not math.isfinite(sum(found)):
        raise LostError(NOT_A_NUMBER)
    return found


def spelled(texts: Iterable[str | None]) -> list[float]:
    """Finite numbers written as text.

    Raises:
        LostError: one is none.
    """
    try:
        found = [float(text) for text in texts if text is not None]
        complete = all(map(math.isfinite, found))
    except ValueError as error:
        raise LostError(NOT_A_NUMBER) from error
    if not complete:
        raise LostError(NOT_A_NUMBER)
    return found


def corners_of(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Corners of a polygon from ``x1, y1, x2, y2, …``.

    Raises:
        LostError: a number is missing, or corners are.
    """
    if len(values) % 2 or len(values) < 6:
        raise LostError(TOO_FEW_CORNERS)
    return tuple(zip(values[::2], values[1::2], strict=True))


def stated_size(width: object, height: object) -> SizeWH | None:
    """A size that a label file states; None when it does not, or only as zeros."""
    if type(width) is int and type(height) is int:
        return (width, height) if 0 < width < 2**31 and 0 < height < 2**31 else None
    whole = [v for v in (width, height) if type(v) in (int, float) and 0 < float(str(v)) < 2**31]
    if len(whole) < 2 or any(value != int(float(str(value))) for value in whole):
        return None
    return int(float(str(width))), int(float(str(height)))
