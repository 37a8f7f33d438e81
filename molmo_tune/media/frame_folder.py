"""Folder of images as a video: frames in the order of their names, at the rate it states.

Tracking datasets store videos this way. The rate is in `fps.txt` (a number, nothing else) or is
`frameRate` in MOT's `seqinfo.ini`; either file is in the folder or next to it. A rate is never
guessed, because the model answers with times. Names that skip a number are refused, because later
frames would be shown too early; every second or fifth frame of a video is fine.

A folder is read again when `folder_state` changes: when an image is added, removed or overwritten,
or the rate changes.
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
    """Frames of a folder in order; all have the size of the first.

    Args:
        frames: image files.
        fps: frames per second.
        size_wh: upright width and height in pixels.
    """

    frames: tuple[Path, ...]
    fps: float
    size_wh: tuple[int, int]

    @property
    def starts_s(self) -> tuple[float, ...]:
        """Start of every frame in seconds."""
        return tuple(round(number / self.fps, 6) for number in range(len(self.frames)))

    @property
    def duration_s(self) -> float:
        """End of the last frame in seconds."""
        return round(len(self.frames) / self.fps, 6)


def open_folder(path: Path) -> FrameFolder:
    """List a folder's frames.

    Raises:
        UserError: the folder has no images, the first does not open, the numbers have a gap, or no
            rate is stated.
    """
    files = (file for file in path.iterdir() if not file.name.startswith("."))
    frames = sorted((file for file in files if file.suffix.lower() in SUFFIXES), key=_by_number)
    if not frames:
        raise UserError(path, "a folder without images", "the frames of a video")
    _refuse_gaps(path, frames)
    return FrameFolder(tuple(frames), _rate(path), image_size(frames[0]))


def folder_state(path: Path) -> tuple[int, int]:
    """Return two numbers that change with any image, the rate or the list of files.

    They depend on names, sizes and modification times: the folder's own modification time does not
    change when a file is overwritten.
    """
    with os.scandir(path) as files:
        entries = sorted((file.name, *_change(file)) for file in files)
    outside = (path.parent / name for name in (RATE_FILE, MOT_FILE))
    entries += [(str(file), *_change(file)) for file in outside if file.is_file()]
    digest = hashlib.blake2b(repr(entries).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little"), len(entries)


def _change(file: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def read_folder(
    folder: FrameFolder, numbers: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield each frame number with its upright RGB frame ``(H, W, 3)``.

    Raises:
        UserError: an image does not open, or differs in size from the first.
    """
    for number in numbers:
        path = folder.frames[number]
        frame = read_image(path)
        if frame.shape[1::-1] != folder.size_wh:
            found = f"is {frame.shape[1]}x{frame.shape[0]}"
            expected = f"{folder.size_wh[0]}x{folder.size_wh[1]}, the first frame's size"
            raise UserError(path, found, expected)
        yield number, frame


def _by_number(file: Path) -> tuple[object, ...]:
    """Return a sort key that puts `frame_9` before `frame_10`."""
    parts = re.split(r"(\d+)", file.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def has_images(path: Path) -> bool:
    """Whether a path is a folder that contains images."""
    try:
        return path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.iterdir())
    except (OSError, ValueError):  # not a possible file name
        return False


def _refuse_gaps(path: Path, frames: Sequence[Path]) -> None:
    """Raise an error unless the last numbers of the names increase in equal steps."""
    numbers = [int(found[-1]) for file in frames if (found := re.findall(r"\d+", file.stem))]
    steps = [later - number for number, later in pairwise(numbers)]
    if len(numbers) < len(frames) or len(set(steps)) < 2:
        return
    usual = min(steps)
    place = next(place for place, step in enumerate(steps) if step != usual)
    gap = f"frames are missing between {frames[place].name} and {frames[place + 1].name}"
    raise UserError(path, gap, "numbers in equal steps", "restore the frames or make a video")


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
    fix = f"write the frames per second to {path / RATE_FILE}"
    raise UserError(path, "a folder of frames that does not state its rate", fix=fix)


def _number(where: Path, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(where, f"{text.strip()[:40]!r}", "frames per second, a number above 0")
    return rate
