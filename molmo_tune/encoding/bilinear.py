"""Bilinear resizing that gives the same pixels on every machine: those the model was trained with.

Molmo 2's preprocessing resizes uint8 frames with PyTorch's bilinear kernel (no antialiasing) and
rounds to whole gray levels. Common ratios put thousands of values exactly half way between two
levels, and which way they fall depends on whether the compiler fused multiplications and additions,
that is, on the CPU: the kernel built for AVX2 and the one built for AVX-512 disagree in some of
them. Measured on the reference video, such flips move the logits by 9e-5, as much as all other
arithmetic together by 3e-6.

So the AVX-512 kernel's arithmetic, which the reference used, is written out here: source
coordinates and weighted sums as fused multiply-adds, rows after columns. A fused operation on
float32 is done in float64, where the product is exact, and rounded once. Only what lies near the
middle between two levels is computed so; all other values round alike whatever the order of their
sums, and PyTorch's kernel gives them five times as fast.

What it does not do: antialias, or any other interpolation; the processors that use it are in
`resize`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

ARITHMETIC = "bilinear 1"
"""Name of what is computed here; changes when a result does, and with it what caches keep."""

NEAR_MIDDLE = 1e-3  # gray levels; the sums of two kernels differ by less than 1e-4


def resize_bilinear(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize ``(N, C, H, W)`` whole gray levels to ``(N, C, height, width)`` float32.

    The values are not rounded yet; each rounds to the level that the reference has there.
    """
    if images.shape[-2:] == (height, width):
        return images
    images = images.contiguous(memory_format=torch.channels_last)  # its kernel is the faster one
    resized = F.interpolate(images.float(), (height, width), mode="bilinear", align_corners=False)
    middles = resized.floor().add_(0.5).sub_(resized).abs_() < NEAR_MIDDLE
    number, channel, row, column = torch.nonzero(middles, as_tuple=True)
    rows, columns = _neighbors(images.shape[-2], height), _neighbors(images.shape[-1], width)
    above, below, *row_weights = (part[row] for part in rows)
    left, right, *column_weights = (part[column] for part in columns)

    def blended(source_row: torch.Tensor) -> torch.Tensor:
        pair = (images[number, channel, source_row, source].float() for source in (left, right))
        return _blend(*pair, *column_weights)

    exact = _blend(blended(above), blended(below), *row_weights)
    resized[number, channel, row, column] = exact
    return resized


def resize_frame(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """One picture ``(H, W, C)`` as ``(height, width, C)``, rounded to whole levels."""
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
    levels = resize_bilinear(image, height, width).round_().clamp_(0, 255).byte()
    return levels[0].permute(1, 2, 0).contiguous().numpy()


class _Neighbors(NamedTuple):
    """For each target place: the two source places and their weights (summing to 1)."""

    first: torch.Tensor
    second: torch.Tensor
    first_weight: torch.Tensor
    second_weight: torch.Tensor


def _neighbors(size: int, target: int) -> _Neighbors:
    scale = np.float64(np.float32(size) / np.float32(target))
    places = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    places = np.maximum(places, np.float32(0))
    first = places.astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    weight = places - first.astype(np.float32)
    return _Neighbors(*map(torch.from_numpy, (first, second, np.float32(1) - weight, weight)))


def _blend(
    first: torch.Tensor,
    second: torch.Tensor,
    first_weight: torch.Tensor,
    second_weight: torch.Tensor,
) -> torch.Tensor:
    """``fma(first, first_weight, second·second_weight)`` of float32 values."""
    product = second * second_weight
    return (first.double() * first_weight.double() + product.double()).float()
