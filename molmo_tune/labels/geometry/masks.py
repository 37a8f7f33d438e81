"""Masks: COCO run lengths packed, unpacked and validated, and polygons rasterized.

A mask is stored as COCO's compressed run lengths: the pixels column by column, in runs that begin
with zeros, each run as the difference from the run two before, in five-bit digits (``maskApi.c`` of
cocoapi). The numbers come from untrusted files, and pycocotools trusts them: on random text, its
decoder wrote out of bounds and crashed the process; on runs that are too short, it returned
uninitialized memory. So runs are decoded here and must cover the image exactly. Polygons are
clipped to the frame, then rasterized by pycocotools.

Pixel ``(column, row)`` of a mask represents the point ``(column, row)``: scoring rounds a point to
its pixel, so this point is always inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from molmo_tune.labels.sample import Mask, Polygon

Pixels = NDArray[np.bool_]
XY = tuple[int, int]

LARGEST_PX = 2**28  # Pillow refuses images above 179 million pixels
_LONGEST_RUN = 2**40  # more pixels than any image has; keeps the sums below from overflowing


def unpack(mask: Mask) -> Pixels:
    """Return the pixels of a mask, ``(height, width)``.

    Raises:
        ValueError: the runs do not cover the image exactly.
    """
    height, width = mask.size_hw
    runs = runs_of(mask)
    values = np.zeros(len(runs), np.bool_)
    values[1::2] = True
    return np.repeat(values, runs).reshape(width, height).T


def pack(pixels: Pixels) -> Mask:
    """Return the mask of pixels ``(height, width)``."""
    flat = np.asfortranarray(pixels).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size])))
    if flat.size and flat[0]:
        runs = np.concatenate(([0], runs))
    height, width = pixels.shape
    return Mask(format_runs(runs.tolist()), (height, width))


def unpack_rows(
    runs: Sequence[int],
    left_top: tuple[int, int],
    box_wh: tuple[int, int],
    size_wh: tuple[int, int],
) -> Pixels:
    """Return the pixels of runs, zeros first, that cover a box row by row (CVAT's masks).

    Args:
        runs: lengths in pixels.
        left_top: first pixel of the box.
        box_wh: width and height of the box in pixels.
        size_wh: width and height of the image in pixels.

    Returns:
        The pixels of the image, ``(height, width)``.

    Raises:
        ValueError: the runs do not cover the box exactly, or the box extends beyond the image.
    """
    (left, top), (width, height) = left_top, box_wh
    fits = left >= 0 and top >= 0 and left + width <= size_wh[0] and top + height <= size_wh[1]
    if min(runs, default=-1) < 0 or min(width, height) < 1 or sum(runs) != width * height:
        raise ValueError(f"mask run lengths do not cover {width}x{height} pixels")
    if not fits:
        raise ValueError("mask extends beyond the image")
    values = np.zeros(len(runs), np.bool_)
    values[1::2] = True
    pixels = np.zeros(size_wh[::-1], np.bool_)
    crop = np.repeat(values, np.array(runs)).reshape(height, width)
    pixels[top : top + height, left : left + width] = crop
    return pixels


def runs_of(mask: Mask) -> NDArray[np.int64]:
    """Return the run lengths, zeros first.

    Raises:
        ValueError: the text is not run lengths, or they do not cover the image exactly.
    """
    height, width = mask.size_hw
    if height * width > LARGEST_PX:
        raise ValueError(f"{width}x{height} pixels exceed the limit of {LARGEST_PX}")
    runs = _parse_runs(mask.counts)
    if len(runs) and (runs.min() < 0 or runs.max() > _LONGEST_RUN):
        raise ValueError("a run length is negative or too large")
    if int(runs.sum()) != height * width:
        raise ValueError(f"run lengths cover {int(runs.sum())} pixels, not {height * width}")
    return runs


def count_pixels(mask: Mask) -> int:
    """Return the number of pixels of the object.

    Raises:
        ValueError: see `runs_of`.
    """
    return int(runs_of(mask)[1::2].sum())


def format_runs(runs: Sequence[int]) -> str:
    """Return run lengths as COCO's compressed text."""
    digits = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            digit = value & 0x1F
            value >>= 5
            more = value != (-1 if digit & 0x10 else 0)
            digits.append((digit | 0x20 if more else digit) + 48)
    return bytes(digits).decode("ascii")


def _parse_runs(text: str) -> NDArray[np.int64]:
    """Decode differences in five-bit digits, least first; bit 32 means more follow, 16 the sign."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("not run lengths")
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 9:
        raise ValueError("a run length is too large")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs


def fill(polygon: Polygon, size_wh: tuple[int, int]) -> Pixels:
    """Return the pixels ``(height, width)`` of a polygon inside the frame, filled as COCO does."""
    width, height = size_wh
    parts = [[value for corner in part for value in corner] for part in polygon.parts_px]
    packed = coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
    filled: Pixels = coco_mask.decode(packed).astype(np.bool_)
    return filled
