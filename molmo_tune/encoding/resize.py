"""The native processors, with resizing that is the same on every machine (`bilinear`).

They tile thin images as in training (`tiling`). All other pixel code is the native one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.molmo2.video_processing_molmo2 import (
    Molmo2VideoProcessor,
    arange_for_pooling,
    batch_pixels_to_patches,
)

from molmo_tune.encoding.bilinear import resize_bilinear
from molmo_tune.encoding.tiling import at_least_one_pixel, choose_tiling

_PIXEL_OPTIONS = (
    *("resample", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std"),
)


class ExactImageProcessor(Molmo2ImageProcessor):  # type: ignore[misc]
    """The native image processor, with `bilinear` resizing and the tiling of thin images."""

    def resize(self, image: torch.Tensor, size: object, **_: object) -> torch.Tensor:
        """Resize as `resize_bilinear` does; `size` has `height` and `width`."""
        return resize_bilinear(image, size.height, size.width)  # type: ignore[attr-defined]

    def get_image_grid_and_crops(
        self, height: int, width: int, images_kwargs: dict[str, Any] | None = None
    ) -> tuple[list[int], int]:
        """Return pooled rows and columns (global view, then crops) and the number of crops."""
        size_hw = at_least_one_pixel(height, width, self.overlap_margins, self.patch_size)
        grid, num_crops = super().get_image_grid_and_crops(*size_hw, images_kwargs)
        return list(grid), int(num_crops)

    def _build_overlapping_crops(self, images: torch.Tensor, **options: Any) -> Any:
        """Return the crops of ``(N, C, H, W)``; thin images are resized to their canvas first.

        The native rule tiles such a canvas the same way and does not resize it again.
        """
        height, width = images.shape[-2:]
        margins, patch_size = options["overlap_margins"], options["image_patch_size"]
        if (height, width) != at_least_one_pixel(height, width, margins, patch_size):
            tiling = choose_tiling(
                height,
                width,
                max_crops=options["max_crops"],
                overlap_margins=margins,
                crop_size=options["crop_size"],
                patch_size=patch_size,
            )
            canvas = resize_bilinear(images, *tiling.canvas_hw)
            images = canvas.round().clamp(0, 255).to(images.dtype)
        return super()._build_overlapping_crops(images, **options)


class ExactVideoProcessor(Molmo2VideoProcessor):  # type: ignore[misc]
    """The native video processor, with `bilinear` resizing and without copies of the clip."""

    def resize(self, image: torch.Tensor, size: object, **_: object) -> torch.Tensor:
        """Resize as `resize_bilinear` does; `size` has `height` and `width`."""
        return resize_bilinear(image, size.height, size.width)  # type: ignore[attr-defined]

    def _preprocess(self, videos: list[torch.Tensor], **options: Any) -> BatchFeature:
        """Return the features of the clips; unlike the native method, do not copy a single clip."""
        if len(videos) != 1 or options["size"].height != options["size"].width:
            return super()._preprocess(videos, **options)
        pooling_h, pooling_w = options["pooling_size"]
        grid, patches, pooling = self._build_video_patches(
            videos[0],
            crop_size=options["size"].height,
            image_patch_size=options["patch_size"],
            image_pooling_h=pooling_h,
            image_pooling_w=pooling_w,
            **{name: options[name] for name in _PIXEL_OPTIONS},
        )
        starts = torch.arange(len(patches))[:, None, None] * patches.shape[1]
        everywhere = torch.where(pooling >= 0, pooling + starts, pooling)
        data = {
            "pixel_values_videos": patches,
            "video_token_pooling": everywhere.reshape(-1, pooling.shape[-1]),
            "video_grids": torch.tensor([[len(patches), *grid]]),
        }
        return BatchFeature(data, tensor_type=options["return_tensors"])

    def _build_video_patches(self, video: torch.Tensor, **options: Any) -> Any:
        """Return pooled grid, patches and pooling of ``(N, C, H, W)``, as the native method does.

        Frames of the model's size are cut into patches as bytes and become floats one by one,
        within the CPU's cache: the same floats ten times as fast.
        """
        side, patch = options["crop_size"], options["image_patch_size"]
        is_ready = video.dtype == torch.uint8 and video.shape[-2:] == (side, side)
        if not (is_ready and options["do_rescale"] and options["do_normalize"]):
            return super()._build_video_patches(video, **options)
        grid = torch.arange((side // patch) ** 2, dtype=torch.int32).reshape(side // patch, -1)
        pools = options["image_pooling_h"], options["image_pooling_w"]
        pooling, rows, columns = arange_for_pooling(grid, *pools)
        mean, std, _ = self._fuse_mean_std_and_rescale_factor(
            do_normalize=True,
            image_mean=_hashable(options["image_mean"]),
            image_std=_hashable(options["image_std"]),
            do_rescale=True,
            rescale_factor=options["rescale_factor"],
            device=video.device,
        )
        pixels = patch * patch
        mean, std = (
            mean.repeat(pixels),
            std.repeat(pixels),
        )  # colors are innermost
        shape = (len(video), (side // patch) ** 2, pixels * video.shape[1])
        patches = torch.from_numpy(np.empty(shape, np.float32))  # numpy requests large pages
        for frame, place in zip(video, patches, strict=True):
            cut = batch_pixels_to_patches(frame.permute(1, 2, 0)[None], patch)
            place.copy_(cut[0]).sub_(mean).div_(std)
        return [rows, columns], patches, pooling


def _hashable(values: Any) -> Any:
    """Return a list as a tuple; the native function caches its results by these."""
    return tuple(values) if isinstance(values, list) else values
