"""Decoder of Label Studio's brush strokes: a list of bytes that is *not* COCO's run lengths.

The bytes are a bit stream: 32 bits for the number of values, 5 for the size of a value minus one,
four times 4 for the sizes of lengths minus one; then blocks, each with a bit that marks one
repeated value, two bits that select a size, a length minus one of that size, and the value or
values. They are red, green, blue and opacity of all pixels, row by row; pixels that are not fully
transparent belong to the object. Source: ``brush.py`` of Label Studio's SDK, which gives the same
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from molmo_tune.labels.geometry.masks import Pixels

CHANNELS = 4


def decode_brush(values: Sequence[int], size_wh: tuple[int, int]) -> Pixels:
    """Return the pixels ``(height, width)`` of brush strokes on an image.

    Raises:
        ValueError: the stream ends early, or belongs to an image of a different size.
    """
    stream = _Bits(bytes(values))
    width, height = size_wh
    if stream.read(32) != width * height * CHANNELS:
        raise ValueError("brush strokes do not match the image size")
    bits_of_value = stream.read(5) + 1
    sizes = [stream.read(4) + 1 for _ in range(4)]
    found: NDArray[np.uint8] = np.zeros(width * height * CHANNELS, np.uint8)
    at = 0
    while at < len(found):
        is_repeated = stream.read(1)
        end = min(at + 1 + stream.read(sizes[stream.read(2)]), len(found))
        if is_repeated:
            found[at:end] = stream.read(bits_of_value) & 0xFF
        else:
            found[at:end] = [stream.read(bits_of_value) & 0xFF for _ in range(end - at)]
        at = end
    opaque: Pixels = found.reshape(height, width, CHANNELS)[:, :, 3] > 0
    return opaque


class _Bits:
    """Reader of numbers of any size from bytes, highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> int:
        first, end = self._at // 8, -(-(self._at + count) // 8)
        if end > len(self._data):
            raise ValueError("brush strokes end early")
        number = int.from_bytes(self._data[first:end], "big")
        self._at += count
        return (number >> (end * 8 - self._at)) & ((1 << count) - 1)
