"""A folder of pictures as a video: frames in the order of their names, at the rate it states.

Data sets of tracking keep their videos so. The rate stands in `fps.txt` inside the folder or beside
it (a number and nothing else) or as `frameRate` in MOT's `seqinfo.ini`, likewise. A rate is never
guessed: times are what the model answers with. Names that skip a number are refused, since the
pictures after it would be shown too early; every second or fifth of a video is a video, too.

What was read of a folder counts as long as `folder_state` stays: a picture that is added, removed
or overwritten, or another rate, changes it.
"""

from __future__ import annotations

import configparser
import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError
from molmo_tune.media.image import image_size, read_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
RATE_FILE = "fps.txt"
MOT_FILE = "seqinfo.ini"


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """Pictures in order; all have the size of the first."""

    pictures: tuple[Path, ...]
    fps: float
    size_wh: tuple[int, int]

    @property
    def starts_s(self) -> tuple[float, ...]:
        """Time of every frame in seconds."""
        return tuple(round(number / self.fps, 6) for number in range(len(self.pictures)))

    @property
    def duration_s(self) -> float:
        """End of the last frame."""
        return round(len(self.pictures) / self.fps, 6)


def open_folder(path: Path) -> FrameFolder:
    """List a folder's pictures.

    Raises:
        UserError: there are none, the first does not open, their numbers have a gap, or no rate
        is stated.
    """
    files = (file for file in path.iterdir() if not file.name.startswith("."))
    pictures = sorted((file for file in files if file.suffix.lower() in SUFFIXES), key=_by_number)
    if not pictures:
        raise UserError(path, "a folder without pictures", "the frames of a video")
    _refuse_gaps(path, pictures)
    return FrameFolder(tuple(pictures), _rate(path), image_size(pictures[0]))


def folder_state(path: Path) -> tuple[int, int]:
    """Two numbers that change when a picture, the rate or the list of files does.

    Names, sizes and times of change are looked at; a folder's own time says nothing of a file that
    was overwritten.
    """
    with os.scandir(path) as files:
        entries = sorted((file.name, *_change(file)) for file in files)
    beside = (path.parent / name for name in (RATE_FILE, MOT_FILE))
    entries += [(str(file), *_change(file)) for file in beside if file.is_file()]
    digest = hashlib.blake2b(repr(entries).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little"), len(entries)


def _change(file: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def read_folder(
    folder: FrameFolder, numbers: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Frame numbers with their pictures ``(H, W, 3)``.

    Raises:
        UserError: a picture does not open, or has another size than the first.
    """
    for number in numbers:
        path = folder.pictures[number]
        picture = read_image(path)
        if picture.shape[1::-1] != folder.size_wh:
            found = f"is {picture.shape[1]}x{picture.shape[0]}"
            expected = f"{folder.size_wh[0]}x{folder.size_wh[1]}, as the first frame"
            raise UserError(path, found, expected)
        yield number, picture


def _by_number(file: Path) -> tuple[object, ...]:
    """`frame_9` before `frame_10`."""
    parts = re.split(r"(\d+)", file.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def holds_pictures(path: Path) -> bool:
    """Whether something is a folder with pictures in it."""
    try:
        return path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.iterdir())
    except (OSError, ValueError):  # a name that no file can have
        return False


def _refuse_gaps(path: Path, pictures: Sequence[Path]) -> None:
    """Complain when the last numbers of the names do not go on in equal steps."""
    numbers = [int(found[-1]) for file in pictures if (found := re.findall(r"\d+", file.stem))]
    steps = [later - number for number, later in pairwise(numbers)]
    if len(numbers) < len(pictures) or len(set(steps)) < 2:
        return
    usual = min(steps)
    place = next(place for place, step in enumerate(steps) if step != usual)
    gap = f"frames are missing between {pictures[place].name} and {pictures[place + 1].name}"
    raise UserError(path, gap, "numbers in equal steps", "put them back, or make a video")


def _rate(path: Path) -> float:
    for stated in (path / RATE_FILE, path.parent / RATE_FILE):
        if stated.is_file():
            return _number(stated, stated.read_text(encoding="utf-8", errors="replace"))
    for ini in (path / MOT_FILE, path.parent / MOT_FILE):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            if parser.read(ini, encoding="utf-8"):
                return _number(ini, parser["Sequence"]["frameRate"])
        except (configparser.Error, KeyError, UnicodeDecodeError) as error:
            raise UserError(ini, f"no frameRate ({error})", "a number in [Sequence]") from error
    fix = f"write the frames per second into {path / RATE_FILE}"
    raise UserError(path, "a folder of frames that does not state its rate", fix=fix)


def _number(where: Path, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(where, f"{text.strip()[:40]!r} is no rate", "frames per second")
    return rate
