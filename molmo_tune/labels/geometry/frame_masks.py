"""Masks of video frames as datasets store them: COCO run lengths, and images of object IDs.

In an ID image (DAVIS, YouTube-VOS, MOTS) a pixel's value is the object's ID, so it is read without
applying a palette. Such frames are identified only by their file names; `frame_numbers` maps the
names to frames of the video.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from molmo_tune.labels.geometry.masks import count_pixels, format_runs, pack, runs_of
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import DroppedRowError, floats
from molmo_tune.labels.sample import Mask

BAD_RUNS = "mask run lengths do not match the video size"
NOT_AN_ID_IMAGE = "mask is not an image of object IDs"
OTHER_MASK_SIZE = "mask size differs from the video"
EMPTY_MASK = "empty mask: object absent"
BY_POSITION = "video has one frame per label, so the n-th label is on the n-th frame"


def mask_of(value: object, size_wh: SizeWH, misfit: str = BAD_RUNS) -> Mask:
    """Return the mask of ``{"size": [height, width], "counts": …}``, counts as text or as a list.

    Args:
        value: value from the JSON file.
        size_wh: width and height of the frame in pixels.
        misfit: message for a mask that does not match the frame.

    Raises:
        DroppedRowError: the value is not a mask of this size.
    """
    if not isinstance(value, Mapping) or value.get("size") != [size_wh[1], size_wh[0]]:
        raise DroppedRowError(misfit)
    counts = value.get("counts")
    if isinstance(counts, list):
        runs = floats(counts)
        if any(run < 0 or run != int(run) or run > 2**40 for run in runs):
            raise DroppedRowError(misfit)
        counts = format_runs([int(run) for run in runs])
    if not isinstance(counts, str):
        raise DroppedRowError(misfit)
    mask = Mask(counts, (size_wh[1], size_wh[0]))
    try:
        runs_of(mask)
    except ValueError as error:
        raise DroppedRowError(misfit) from error
    return mask


def is_empty(value: object) -> bool:
    """Whether a mask has no pixels; an invalid mask is not empty."""
    if not isinstance(value, Mapping) or not isinstance(value.get("size"), list):
        return False
    counts, size = value.get("counts"), value["size"]
    if isinstance(counts, list):
        return not any(counts[1::2])
    try:
        return isinstance(counts, str) and count_pixels(Mask(counts, (size[0], size[1]))) == 0
    except (ValueError, TypeError, IndexError, OverflowError):
        return False


def read_id_image(path: Path) -> NDArray[Any]:
    """Return the object IDs of an image, ``(height, width)``.

    Raises:
        DroppedRowError: the image does not open, or contains colors.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1", "I;16", "I;16B", "I"):
                raise DroppedRowError(f"{NOT_AN_ID_IMAGE} (mode {image.mode})")
            return np.array(image).astype(np.int64)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DroppedRowError(NOT_AN_ID_IMAGE) from error
    except Image.DecompressionBombError as error:
        raise DroppedRowError(NOT_AN_ID_IMAGE) from error


def mask_of_id(numbers: NDArray[Any], number: int, size_wh: SizeWH) -> Mask:
    """Return the mask of one object in an ID image.

    Raises:
        DroppedRowError: the size of the image differs from the video.
    """
    height, width = numbers.shape
    if (width, height) != size_wh:
        raise DroppedRowError(
            f"{OTHER_MASK_SIZE} (mask {width}x{height}, video {size_wh[0]}x{size_wh[1]})"
        )
    return pack(numbers == number)


def last_number_in_name(name: str) -> int | None:
    """Return the last number in a file's name, e.g., 5 in ``clip/00005.jpg``."""
    found = re.findall(r"\d+", Path(name).stem)
    return int(found[-1]) if found and len(found[-1]) <= 15 else None


def frame_numbers(names: Sequence[str], num_frames: int, first: int = 0) -> list[int | None]:
    """Return the 0-based frame index of each name, None without a number.

    Args:
        names: names of the labeled frames in order, such as ``00000, 00005, …``.
        num_frames: number of frames of the video. If it equals the number of names, the video was
            made of these frames, and the position is the index; otherwise the numbers are frames.
        first: the dataset's number of the first frame.
    """
    if len(names) == num_frames:
        return list(range(num_frames))
    found = [last_number_in_name(name) for name in names]
    return [None if number is None else number - first for number in found]
