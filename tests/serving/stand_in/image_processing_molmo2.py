"""Replacement for the remote code of released checkpoints: a Transformers class with one change.

Pooling indices restart at 0 for each image, as in the released code and as vLLM expects; those of
Transformers continue from image to image.
"""

from typing import Any

from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor as Native


class Molmo2ImageProcessor(Native):
    """The Transformers class, with indices that restart for each image."""

    def preprocess(self, *images: Any, **options: Any) -> Any:
        """Preprocess images and restart the indices."""
        found = super().preprocess(*images, **options)
        first_row, first_patch = 0, 0
        patches_per_crop = found["pixel_values"].shape[1]
        for grid, num_crops in zip(found["image_grids"], found["image_num_crops"], strict=True):
            last_row = first_row + int(grid[:2].prod() + grid[2:].prod())
            rows = found["image_token_pooling"][first_row:last_row]
            rows[rows >= 0] -= first_patch
            first_row, first_patch = last_row, first_patch + int(num_crops) * patches_per_crop
        return found
