"""Bilinear resizing that gives the same pixels on every machine: those the model was trained on.

Molmo 2's preprocessing resizes uint8 frames with PyTorch's bilinear kernel (no antialiasing) and
rounds to whole gray levels. Common ratios put thousands of values exactly halfway between two
levels, and the CPU decides which way they round: the AVX2 and AVX-512 kernels differ in whether
they fuse multiplications and additions. On the reference video, such flips move the logits by
9e-5; all other arithmetic moves them by 3e-6.

This module spells out the arithmetic of the AVX-512 kernel, which the reference used: source
coordinates and weighted sums as fused multiply-adds, columns before rows. A fused operation on
float32 is computed in float64, where the product is exact, and rounded once. Only values near the
middle between two levels are computed this way; all others round alike in every kernel, and
PyTorch's is five times as fast.

"Near" depends on the place. From the same coordinates, two kernels differ by less than 1e-4 levels.
But PyTorch has one kernel for a single thread and another for several, and the second rounds a
source coordinate twice. In the half pixel below a power of two this moves the sample: below 512 by
up to 6e-5 pixels, that is, up to 0.016 levels. It concerns at most three rows or columns of the
sizes measured, and there "near" includes that distance.

Limitations: no antialiasing and no other interpolation. `resize` holds the processors that use it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

ARITHMETIC = "bilinear 2"
"""Version of the arithmetic, part of cache keys; changes when any result changes."""

SUMS_DIFFER = 1e-3  # gray levels; from the same coordinates, kernels differ by less than 1e-4
MAX_SLOPE = 255  # gray levels per source pixel


def resize_bilinear(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize ``(N, C, H, W)`` whole gray levels to ``(N, C, height, width)`` float32.

    The result is not rounded; each value rounds to the reference's gray level.
    """
    if images.shape[-2:] == (height, width):
        return images
    images = images.contiguous(memory_format=torch.channels_last)  # the faster layout
    resized = F.interpolate(images.float(), (height, width), mode="bilinear", align_corners=False)
    rows, columns = _neighbors(images.shape[-2], height), _neighbors(images.shape[-1], width)
    near = SUMS_DIFFER + MAX_SLOPE * (rows.spread[:, None] + columns.spread)
    middles = resized.floor().add_(0.5).sub_(resized).abs_() < near
    number, channel, row, column = torch.nonzero(middles, as_tuple=True)
    above, below, *row_weights = (part[row] for part in rows[:4])
    left, right, *column_weights = (part[column] for part in columns[:4])

    def blended(source_row: torch.Tensor) -> torch.Tensor:
        pair = (images[number, channel, source_row, source].float() for source in (left, right))
        return _blend(*pair, *column_weights)

    exact = _blend(blended(above), blended(below), *row_weights)
    resized[number, channel, row, column] = exact
    return resized


def resize_frame(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize one frame ``(H, W, C)`` to ``(height, width, C)``, rounded to whole gray levels."""
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
    levels = resize_bilinear(image, height, width).round_().clamp_(0, 255).byte()
    return levels[0].permute(1, 2, 0).contiguous().numpy()


class _Neighbors(NamedTuple):
    """For each target index, two source indices and their weights, which sum to 1.

    ``spread``: distance in source pixels between the coordinates of PyTorch's two kernels, float32.
    """

    first: torch.Tensor
    second: torch.Tensor
    first_weight: torch.Tensor
    second_weight: torch.Tensor
    spread: torch.Tensor


def _neighbors(size: int, target: int) -> _Neighbors:
    scale, centers = np.float32(size) / np.float32(target), np.arange(target) + 0.5
    fused = (centers * np.float64(scale) - 0.5).astype(np.float32)
    rounded_twice = centers.astype(np.float32) * scale - np.float32(0.5)
    places = np.maximum(fused, np.float32(0))
    first = places.astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    weight = places - first.astype(np.float32)
    spread = np.abs(fused - rounded_twice)
    arrays = (first, second, np.float32(1) - weight, weight, spread)
    return _Neighbors(*map(torch.from_numpy, arrays))


def _blend(
    first: torch.Tensor,
    second: torch.Tensor,
    first_weight: torch.Tensor,
    second_weight: torch.Tensor,
) -> torch.Tensor:
    """Return ``fma(first, first_weight, second·second_weight)`` of float32 values."""
    product = second * second_weight
    return (first.double() * first_weight.double() + product.double()).float()
