"""Tiling of an image: rows and columns of crops, and the canvas that the image is resized to.

Crops overlap: two margins of each side are context only, so a canvas of r rows is r windows plus
two margins high. As in training, the tiling whose canvas needs the least scaling wins.

The native processor's rule applies to all but thin images. It subtracts the margins from each side
before it compares shapes, so a side of 112 pixels or less vanishes and the image gets a single
crop. Training counted such a side as one pixel.

Limitations: neither resizes nor cuts (`resize` and the native processor do).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry


@dataclass(frozen=True, slots=True)
class Tiling:
    """Rows and columns of crops, and the size in pixels of the canvas they are cut from."""

    rows: int
    cols: int
    canvas_hw: tuple[int, int]


def at_least_one_pixel(
    height: int, width: int, overlap_margins: Sequence[int], patch_size: int
) -> tuple[int, int]:
    """Return height and width for the native rule, with at least one pixel beyond the margins."""
    least = sum(overlap_margins) * patch_size + 1
    return max(height, least), max(width, least)


def choose_tiling(
    height: int,
    width: int,
    *,
    max_crops: int,
    overlap_margins: Sequence[int],
    crop_size: int,
    patch_size: int,
) -> Tiling:
    """Return the tiling of an image; sizes in pixels, except `overlap_margins` in patches."""
    rows, cols, *canvas_hw = compute_crop_geometry(
        *at_least_one_pixel(height, width, overlap_margins, patch_size),
        max_crops=max_crops,
        overlap_margins=list(overlap_margins),
        crop_size=crop_size,
        patch_size=patch_size,
    )
    return Tiling(rows, cols, (canvas_hw[0], canvas_hw[1]))
