"""Masks: COCO's run lengths packed, unpacked and checked, and polygons turned into pixels.

A mask is stored as COCO's compressed run lengths: the pixels column by column, in runs that begin
with zeros, each run written as the difference from the one before the last in five-bit digits
(``maskApi.c`` of cocoapi). The numbers come from strangers' files, and pycocotools trusts them: on
random text its decoder wrote outside its memory and ended the process, and on runs that are too
short it returned what happened to lie there. So the runs are read here and must cover the image
exactly. Polygons are turned into pixels by pycocotools, after they were cut to the frame.

Pixel ``(column, row)`` of a mask stands for the point ``(column, row)``: the scores round a point
to its pixel, so such a point is always inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from molmo_tune.labels.sample import Mask, Polygon

Pixels = NDArray[np.bool_]
XY = tuple[int, int]

LARGEST_PX = 2**28  # Pillow opens none of more than 179 million pixels
_LONGEST_RUN = 2**40  # more pixels than any image has; keeps the sums below from overflowing


def unpack(mask: Mask) -> Pixels:
    """The pixels ``(height, width)``.

    Raises:
        ValueError: the runs are not those of an image of this size.
    """
    height, width = mask.size_hw
    runs = runs_of(mask)
    values = np.zeros(len(runs), np.bool_)
    values[1::2] = True
    return np.repeat(values, runs).reshape(width, height).T


def pack(pixels: Pixels) -> Mask:
    """The mask of pixels ``(height, width)``."""
    flat = np.asfortranarray(pixels).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size])))
    if flat.size and flat[0]:
        runs = np.concatenate(([0], runs))
    height, width = pixels.shape
    return Mask(spell_runs(runs.tolist()), (height, width))


def crop_of_rows(
    runs: Sequence[int],
    left_top: tuple[int, int],
    box_wh: tuple[int, int],
    size_wh: tuple[int, int],
) -> Pixels:
    """The pixels of runs that go row by row through a box of the image, zeros first (CVAT).

    Raises:
        ValueError: the runs do not cover the box exactly, or the box leaves the image.
    """
    (left, top), (width, height) = left_top, box_wh
    fits = left >= 0 and top >= 0 and left + width <= size_wh[0] and top + height <= size_wh[1]
    if min(runs, default=-1) < 0 or min(width, height) < 1 or sum(runs) != width * height:
        raise ValueError(f"the runs do not cover {width}x{height} pixels")
    if not fits:
        raise ValueError("the box of the mask leaves the image")
    values = np.zeros(len(runs), np.bool_)
    values[1::2] = True
    pixels = np.zeros(size_wh[::-1], np.bool_)
    crop = np.repeat(values, np.array(runs)).reshape(height, width)
    pixels[top : top + height, left : left + width] = crop
    return pixels


def runs_of(mask: Mask) -> NDArray[np.int64]:
    """The run lengths, zeros first.

    Raises:
        ValueError: the text is none of run lengths, or they do not cover the image exactly.
    """
    height, width = mask.size_hw
    if height * width > LARGEST_PX:
        raise ValueError(f"{width}x{height} is larger than any picture that opens")
    runs = _parse_runs(mask.counts)
    if len(runs) and (runs.min() < 0 or runs.max() > _LONGEST_RUN):
        raise ValueError("a run of the mask is negative or too long")
    if int(runs.sum()) != height * width:
        raise ValueError(f"the runs cover {int(runs.sum())} pixels of {height * width}")
    return runs


def num_set(mask: Mask) -> int:
    """Number of pixels of the object.

    Raises:
        ValueError: see `runs_of`.
    """
    return int(runs_of(mask)[1::2].sum())


def spell_runs(runs: Sequence[int]) -> str:
    """Run lengths as COCO's compressed text."""
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
    """Differences in five-bit digits, the least first; 32 marks that more follow, 16 the sign."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("not the run lengths of a mask")
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 9:
        raise ValueError("a run of the mask is too long")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs


def fill(polygon: Polygon, size_wh: tuple[int, int]) -> Pixels:
    """The pixels ``(height, width)`` of a polygon that lies in the frame, as COCO fills it."""
    width, height = size_wh
    parts = [[value for corner in part for value in corner] for part in polygon.parts_px]
    packed = coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
    filled: Pixels = coco_mask.decode(packed).astype(np.bool_)
    return filled
