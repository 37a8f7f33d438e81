"""Tasks of ``image-vectors.json``: tiling, pooling and tokens of an image.

Blank images go through the complete pipeline, with pixels. The geometry matches the released
checkpoints (crops of 378 pixels); the tokenizer of the bundled tiny base has the same special
tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from molmo_tune.encoding.resize import ExactImageProcessor
from molmo_tune.encoding.tiling import choose_tiling
from molmo_tune.encoding.vision_inputs import image_inputs
from molmo_tune.encoding.vision_tokens import VisionLayout
from molmo_tune.model.loading import load_processor

Input = dict[str, Any]


@cache
def _processor() -> Any:
    processor = copy.copy(load_processor("tiny"))
    processor.image_processor = ExactImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return processor


def image_tokens(given: Input) -> Input:
    processor, layout = _processor(), VisionLayout.of(_processor())
    height, width, max_crops = given["height"], given["width"], given["max_crops"]
    inputs = image_inputs(processor, [np.zeros((height, width, 3), np.uint8)], max_crops)
    geometry = processor.image_processor
    tiling = choose_tiling(
        height,
        width,
        max_crops=max_crops,
        overlap_margins=geometry.overlap_margins,
        crop_size=geometry.size["height"],
        patch_size=geometry.patch_size,
    )
    grid, _ = geometry.get_image_grid_and_crops(height, width, {"max_crops": max_crops})
    num_overview = grid[0] * grid[1]  # the records show first and last row of the crops
    return {
        "tiling": [tiling.rows, tiling.cols],
        "canvas": tiling.canvas_hw,
        "grid": grid,
        "n_crops": len(inputs.patches),
        "n_tokens": len(inputs.token_ids),
        "n_patch_tokens": inputs.token_ids.count(layout.patch),
        "n_col": inputs.token_ids.count(layout.column),
        "pool_sum": int(inputs.pooling.sum()),
        "pool_first": inputs.pooling[num_overview].tolist(),
        "pool_last": inputs.pooling[-1].tolist(),
    }


TASKS: dict[str, Callable[[Input], Any]] = {"image_tokens": image_tokens}
