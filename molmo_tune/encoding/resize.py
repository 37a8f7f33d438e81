"""Bilinear resizing that gives the same pixels on every machine: those the model was trained with.

Molmo 2's preprocessing resizes uint8 frames with PyTorch's bilinear kernel (no antialiasing) and
rounds to whole grey levels. Common ratios put thousands of values exactly half way between two
levels, and which way they fall depends on whether the compiler fused multiplications and additions,
that is, on the CPU: the kernel built for AVX2 and the one built for AVX-512 disagree in some of
them. Measured on the reference video, such flips move the logits by 9e-5, as much as all other
arithmetic together by 3e-6.

So the AVX-512 kernel's arithmetic, which the reference used, is written out here: source
coordinates and weighted sums as fused multiply-adds, rows after columns. A fused operation on
float32 is done in float64, where the product is exact, and rounded once.

The processors that resize so are here too; thin images they tile as in training (`tiling`).

What it does not do: antialias, or any other interpolation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor

from molmo_tune.encoding.tiling import choose_tiling, fatten


def resize_bilinear(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize ``(N, C, H, W)`` float32 to ``(N, C, height, width)``, values not rounded."""
    if images.shape[-2:] == (height, width):
        return images
    rows = _neighbours(images.shape[-2], height)
    columns = _neighbours(images.shape[-1], width)
    resized = images.new_empty((*images.shape[:2], height, width))
    for number, image in enumerate(images.float()):  # one at a time: float64 copies are large
        # Weights are laid out to broadcast over the axis that is being shortened.
        needed, places = np.unique(np.stack(rows[:2]), return_inverse=True)
        wide = _blend(image[:, torch.from_numpy(needed)], columns, axis=-1)
        above, below = places.reshape(2, -1)
        resized[number] = _blend(wide, (above, below, *rows[2:]), axis=-2)
    return resized


def _neighbours(
    size: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """For each target place: the two source places and their weights (summing to 1)."""
    scale = np.float64(np.float32(size) / np.float32(target))
    places = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    places = np.maximum(places, np.float32(0))
    first = places.astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    second_weight = places - first.astype(np.float32)
    return first, second, np.float32(1) - second_weight, second_weight


def _blend(
    image: torch.Tensor,
    neighbours: tuple[
        NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]
    ],
    axis: int,
) -> torch.Tensor:
    """``fma(first, weight, second·weight)`` along one axis of ``(C, H, W)``."""
    first, second, first_weight, second_weight = (torch.from_numpy(part) for part in neighbours)
    if axis == -2:
        first_weight, second_weight = first_weight[:, None], second_weight[:, None]
    product = image.index_select(axis, second) * second_weight
    fused = image.index_select(axis, first).double() * first_weight.double() + product.double()
    return fused.float()


class ExactImageProcessor(Molmo2ImageProcessor):  # type: ignore[misc]
    """The native image processor with the resizing above and the tiling of thin images."""

    def resize(self, image: torch.Tensor, size: object, **_: object) -> torch.Tensor:
        """See `resize_bilinear`; `size` has `height` and `width`."""
        return resize_bilinear(image, size.height, size.width)  # type: ignore[attr-defined]

    def get_image_grid_and_crops(
        self, height: int, width: int, images_kwargs: dict[str, Any] | None = None
    ) -> tuple[list[int], int]:
        """Pooled rows and columns (of the global view, of the crops) and the number of crops."""
        fat = fatten(height, width, self.overlap_margins, self.patch_size)
        grid, num_crops = super().get_image_grid_and_crops(*fat, images_kwargs)
        return list(grid), int(num_crops)

    def _build_overlapping_crops(self, images: torch.Tensor, **options: Any) -> Any:
        """Crops of ``(N, C, H, W)``; thin images are first resized to the canvas of their tiling.

        The native rule tiles a canvas in just that way and does not resize it again.
        """
        height, width = images.shape[-2:]
        margins, patch_size = options["overlap_margins"], options["image_patch_size"]
        if (height, width) != fatten(height, width, margins, patch_size):
            tiling = choose_tiling(
                height,
                width,
                max_crops=options["max_crops"],
                overlap_margins=margins,
                crop_size=options["crop_size"],
                patch_size=patch_size,
            )
            canvas = resize_bilinear(images.float(), *tiling.canvas_hw)
            images = canvas.round().clamp(0, 255).to(images.dtype)
        return super()._build_overlapping_crops(images, **options)


class ExactVideoProcessor(Molmo2VideoProcessor):  # type: ignore[misc]
    """The native video processor with the resizing above."""

    def resize(self, image: torch.Tensor, size: object, **_: object) -> torch.Tensor:
        """See `resize_bilinear`; `size` has `height` and `width`."""
        return resize_bilinear(image, size.height, size.width)  # type: ignore[attr-defined]
