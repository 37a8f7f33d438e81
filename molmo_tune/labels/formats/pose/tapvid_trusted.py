"""TAP-Vid pickles from a source that you trust: points tracked on surfaces.

    {video: {"points": [n, t, 2], "occluded": [n, t], "video": …}}

A pickle can run any program while it is read. So this format is never detected: naming it
`tapvid_trusted` declares that the file's source is trusted. Even then only plain containers and
arrays of numbers are built.

Points: fractions of width and height, x before y.
Frames: column ``t`` is the t-th frame of the video, which must have exactly as many.
Labels: ``point``; a track follows a spot on a surface, not an object.
Hidden: points with ``occluded``.
Media: videos are named like the keys; the frames inside the pickle are not used.
Refused: pickles that would build anything else.
Exhaustive labels: none.
Source: the readme of google-deepmind/tapnet.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError
from molmo_tune.labels.image_objects import DroppedRowError
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Point, Sample
from molmo_tune.labels.tracks import NOT_A_NUMBER, numbers
from molmo_tune.labels.video_objects import VideoObjects, open_video

LABEL = "point"
_NUMBER_TYPE = re.compile(r"[<>|=]?([fiu][1248]|b1)")


def looks_like_tapvid_trusted(head: str) -> bool:
    """Return False: a pickle cannot be recognized without trusting it."""
    return False


def read_tapvid_trusted(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video of the file.

    Raises:
        UserError: the file is not a pickle of this format, or would build something else.
    """
    try:
        data = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(path, f"not a valid pickle ({type(error).__name__})") from error
    is_known = isinstance(data, dict) and all(
        isinstance(name, str) and isinstance(entry, dict) for name, entry in data.items()
    )
    if not is_known:
        raise UserError(path, "not a dictionary of videos", "a TAP-Vid pickle")
    media.check_single_file(len(data), path)
    found = (_sample(name, entry, path, media, tally) for name, entry in data.items())
    return [sample for sample in found if sample is not None]


class _Array:
    """Description of an array or of a dtype in a pickle, collected without calling numpy."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """Return the array.

        Raises:
            ValueError: the array does not consist of plain numbers.
        """
        if len(self.arguments) == 4:  # numpy's _frombuffer
            data, numbers, shape, order = self.arguments
        else:
            _, shape, numbers, is_fortran, data = self.state
            order = "F" if is_fortran else "C"
        if not isinstance(data, bytes | bytearray) or not isinstance(numbers, _Array):
            raise ValueError("not bytes of numbers")
        return np.frombuffer(data, numbers.dtype()).reshape(shape, order=order)

    def dtype(self) -> np.dtype[Any]:
        """Return the dtype.

        Raises:
            ValueError: the dtype is not a plain number.
        """
        code = str(self.arguments[0])
        if len(self.state) > 1 and self.state[1] in ("<", ">"):
            code = self.state[1] + code
        if not _NUMBER_TYPE.fullmatch(code):
            raise ValueError(f"numbers of type {code}")
        return np.dtype(code)


def _bytes_of(text: str, encoding: str) -> bytes:
    """Encode text to bytes as protocols below 3 need it; other codecs can unpack or import."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding}")
    return text.encode(encoding)


_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Array for core in ("core", "_core")},
    ("numpy", "dtype"): _Array,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _bytes_of,
}


class _Unpickler(pickle._Unpickler):
    """Unpickler that builds only containers and descriptions of arrays.

    It is the Python version, because the C version spent 40 s allocating memory on a damaged file.
    numpy's functions do not build the arrays, because they crashed the process on another one.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError("pickle", f"it would build {module}.{name}", "numpy arrays only")
        return _ALLOWED[module, name]


def _array(value: object) -> NDArray[Any] | None:
    try:
        return value.array() if isinstance(value, _Array) else None
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError):
        return None


def _sample(
    name: str, entry: dict[str, Any], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    place = f"{path}: video {name}"
    points, occluded = _array(entry.get("points")), _array(entry.get("occluded"))
    if points is None or occluded is None:
        raise UserError(place, "no arrays points and occluded", "a TAP-Vid pickle")
    if points.ndim != 3 or points.shape[2] != 2 or occluded.shape != points.shape[:2]:
        raise UserError(place, f"points of shape {points.shape}", "shape (points, frames, 2)")
    video = open_video(media, (name,), (), place, tally, None, points.shape[1])
    objects = VideoObjects(video, tally, place)
    for number, (track, hidden) in enumerate(zip(points.tolist(), occluded.tolist(), strict=True)):
        for frame, (xy, is_hidden) in enumerate(zip(track, hidden, strict=True)):
            _add(xy, str(number), frame, bool(is_hidden), place, objects)
    return objects.sample()


def _add(xy: list[Any], id: str, frame: int, hidden: bool, place: str, to: VideoObjects) -> None:
    def make(size_wh: tuple[int, int]) -> Point:
        values = numbers(xy)
        if values is None:
            raise DroppedRowError(NOT_A_NUMBER)
        return Point((values[0] * size_wh[0], values[1] * size_wh[1]))

    where = f"{place}, point {id}, frame {frame}"
    to.add(LABEL, "point", id, frame, where, make, occluded=hidden)


READER = Reader(
    one_by_one(read_tapvid_trusted),
    looks_like_tapvid_trusted,
    "*.pkl",
    "TAP-Vid pickle from a source that you trust",
    by_name_only=True,
)
