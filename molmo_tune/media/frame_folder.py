"""A folder of pictures as a video: frames in the order of their names, at the rate it states.

Data sets of tracking keep their videos so. The rate stands in `fps.txt` inside the folder (a number
and nothing else) or as `frameRate` in MOT's `seqinfo.ini` inside or beside it. A rate is never
guessed: times are what the model answers with. What was read of a folder counts as long as
`folder_state` stays: a picture that is added, removed or overwritten, or another rate, changes it.
"""

from __future__ import annotations

import configparser
import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError
from molmo_tune.media.image import image_size, read_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
RATE_FILE = "fps.txt"
RATE_BESIDE = "seqinfo.ini"  # also inside


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
        UserError: there are none, the first does not open, or no rate is stated.
    """
    pictures = sorted(
        (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES), key=_by_number
    )
    if not pictures:
        raise UserError(path, "a folder without pictures", "the frames of a video")
    return FrameFolder(tuple(pictures), _rate(path), image_size(pictures[0]))


def folder_state(path: Path) -> tuple[int, int]:
    """Two numbers that change when a picture, the rate or the list of files does.

    Names, sizes and times of change are looked at; a folder's own time says nothing of a file that
    was overwritten.
    """
    with os.scandir(path) as files:
        entries = sorted((file.name, *_change(file)) for file in files)
    beside = path.parent / RATE_BESIDE
    entries += [(str(beside), *_change(beside))] if beside.is_file() else []
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


def _rate(path: Path) -> float:
    stated = path / RATE_FILE
    if stated.is_file():
        return _number(stated, stated.read_text(encoding="utf-8", errors="replace"))
    for ini in (path / RATE_BESIDE, path.parent / RATE_BESIDE):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            if parser.read(ini, encoding="utf-8"):
                return _number(ini, parser["Sequence"]["frameRate"])
        except (configparser.Error, KeyError, UnicodeDecodeError) as error:
            raise UserError(ini, f"no frameRate ({error})", "a number in [Sequence]") from error
    fix = f"write the frames per second into {stated}"
    raise UserError(path, "a folder of frames that does not state its rate", fix=fix)


def _number(where: Path, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(where, f"{text.strip()[:40]!r} is no rate", "frames per second")
    return rate
