"""Stands in for the remote code of released checkpoints: transformers' own class but for one thing.

Pooling indices count the patches of each image from its own first one, as the released code does
and vLLM expects; transformers' go on from image to image.
"""

from typing import Any

from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor as Native


class Molmo2ImageProcessor(Native):
    """As transformers has it, with indices that begin anew."""

    def preprocess(self, *images: Any, **options: Any) -> Any:
        """See the module's text."""
        found = super().preprocess(*images, **options)
        first_row, first_patch = 0, 0
        patches_per_crop = found["pixel_values"].shape[1]
        for grid, num_crops in zip(found["image_grids"], found["image_num_crops"], strict=True):
            last_row = first_row + int(grid[:2].prod() + grid[2:].prod())
            rows = found["image_token_pooling"][first_row:last_row]
            rows[rows >= 0] -= first_patch
            first_row, first_patch = last_row, first_patch + int(num_crops) * patches_per_crop
        return found
