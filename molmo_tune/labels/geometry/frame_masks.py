"""Masks of video frames as the sets write them: COCO run lengths, and pictures of object numbers.

In a picture of numbers (DAVIS, YouTube-VOS, MOTS) the value of a pixel is the object's number, so
it is read as it stands: a palette is never turned into colors. Such frames are known by their
names only; `frame_numbers` says which frame of the video each one is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from molmo_tune.labels.geometry.masks import num_set, pack, runs_of, spell_runs
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import LostError, floats
from molmo_tune.labels.sample import Mask

BAD_RUNS = "mask run lengths do not match the video size"
BAD_PICTURE = "mask is not an image of object IDs"
OTHER_MASK_SIZE = "mask size differs from the video"
EMPTY_MASK = "empty mask: object absent"
BY_POSITION = "video has one frame per label, so the n-th label is on the n-th frame"


def mask_of(value: object, size_wh: SizeWH, misfit: str = BAD_RUNS) -> Mask:
    """The mask of ``{"size": [height, width], "counts": …}``, counts as text or as a list.

    Args:
        value: as read.
        size_wh: of the picture.
        misfit: what is said of one that does not fit.

    Raises:
        LostError: it is none, or not of this size.
    """
    if not isinstance(value, Mapping) or value.get("size") != [size_wh[1], size_wh[0]]:
        raise LostError(misfit)
    counts = value.get("counts")
    if isinstance(counts, list):
        runs = floats(counts)
        if any(run < 0 or run != int(run) or run > 2**40 for run in runs):
            raise LostError(misfit)
        counts = spell_runs([int(run) for run in runs])
    if not isinstance(counts, str):
        raise LostError(misfit)
    mask = Mask(counts, (size_wh[1], size_wh[0]))
    try:
        runs_of(mask)
    except ValueError as error:
        raise LostError(misfit) from error
    return mask


def is_empty(value: object) -> bool:
    """Whether run lengths are those of no pixel at all; unusable ones are not."""
    if not isinstance(value, Mapping) or not isinstance(value.get("size"), list):
        return False
    counts, size = value.get("counts"), value["size"]
    if isinstance(counts, list):
        return not any(counts[1::2])
    try:
        return isinstance(counts, str) and num_set(Mask(counts, (size[0], size[1]))) == 0
    except (ValueError, TypeError, IndexError, OverflowError):
        return False


def numbers_in(path: Path) -> NDArray[Any]:
    """The object numbers of a picture, ``(height, width)``.

    Raises:
        LostError: it does not open, or is a picture of colors.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1", "I;16", "I;16B", "I"):
                raise LostError(f"{BAD_PICTURE} (mode {image.mode})")
            return np.array(image).astype(np.int64)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise LostError(BAD_PICTURE) from error
    except Image.DecompressionBombError as error:
        raise LostError(BAD_PICTURE) from error


def mask_at(numbers: NDArray[Any], number: int, size_wh: SizeWH) -> Mask:
    """The mask of one object.

    Raises:
        LostError: the picture has another size than the video.
    """
    height, width = numbers.shape
    if (width, height) != size_wh:
        raise LostError(
            f"{OTHER_MASK_SIZE} (mask {width}x{height}, video {size_wh[0]}x{size_wh[1]})"
        )
    return pack(numbers == number)


def number_in_name(name: str) -> int | None:
    """The last number in a file's name: 5 of ``clip/00005.jpg``."""
    found = re.findall(r"\d+", Path(name).stem)
    return int(found[-1]) if found and len(found[-1]) <= 15 else None


def frame_numbers(names: Sequence[str], num_frames: int, first: int = 0) -> list[int | None]:
    """The 0-based frame of the video that each name, in order, stands for.

    Args:
        names: of the labeled frames, such as ``00000, 00005, …``.
        num_frames: of the video. If it has as many as there are names it was made of these
            pictures, and position counts; else the numbers are those of frames.
        first: number that the set gives the first frame.
    """
    if len(names) == num_frames:
        return list(range(num_frames))
    found = [number_in_name(name) for name in names]
    return [None if number is None else number - first for number in found]
