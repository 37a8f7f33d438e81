"""How an image is cut into crops: rows, columns and the canvas it is resized to.

Crops overlap: of each side two margins are only context, so a canvas of r rows is r windows and the
two margins high. The tiling whose canvas must be scaled least is taken, as in training. The native
processor's rule is used but for thin images: it takes the margins off each side before it compares
shapes, which leaves nothing of a side of 112 pixels or less, and ends at a single crop. In training
such a side counted as one pixel.

What it does not do: resize or cut (`resize`, the native processor).
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


def fatten(
    height: int, width: int, overlap_margins: Sequence[int], patch_size: int
) -> tuple[int, int]:
    """Height and width for the native rule, which needs a pixel beyond the margins."""
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
    """The tiling of an image; all sizes in pixels but `overlap_margins`, which are in patches."""
    rows, cols, *canvas_hw = compute_crop_geometry(
        *fatten(height, width, overlap_margins, patch_size),
        max_crops=max_crops,
        overlap_margins=list(overlap_margins),
        crop_size=crop_size,
        patch_size=patch_size,
    )
    return Tiling(rows, cols, (canvas_hw[0], canvas_hw[1]))
