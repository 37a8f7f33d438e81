"""Pixels and tokens of images through the native processor, against the reference's own recipe.

The recipe is Ai2's (`molmo2.md` §4), written out in numpy: the whole picture at 378 pixels and then
crops every 266 pixels of a canvas, resized without antialiasing, rounded, and moved to [-1, 1]. One
size of each tiling in the image vectors is run, the smallest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor

from molmo_tune.encoding.resize import ExactVideoProcessor
from molmo_tune.encoding.vision_inputs import image_inputs
from tests.test_resize import written_out
from tests.vectors.image_tasks import _processor

CROP, WINDOW, PATCH = 378, 266, 14
RECORDS = Path(__file__).parent / "data" / "vectors" / "image-vectors.json"


def one_of_each_tiling() -> list[dict[str, Any]]:
    records = json.loads(RECORDS.read_text())
    records.sort(key=lambda record: record["input"]["height"] * record["input"]["width"])
    by_tiling = {tuple(record["output"]["tiling"]): record for record in reversed(records)}
    return [by_tiling[tiling] for tiling in sorted(by_tiling)]


def patches_of(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """``(729, 588)`` in the order rows, columns, then rows, columns, colors of each patch."""
    cut = picture.reshape(27, PATCH, 27, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(729, -1) / 255 * 2 - 1


def expected_patches(
    picture: NDArray[np.uint8], tiling: list[int], canvas: list[int]
) -> NDArray[np.float64]:
    whole = written_out(picture, *canvas)
    starts = [(row * WINDOW, col * WINDOW) for row in range(tiling[0]) for col in range(tiling[1])]
    crops = [whole[y : y + CROP, x : x + CROP] for y, x in starts]
    return np.stack([patches_of(crop) for crop in (written_out(picture, CROP, CROP), *crops)])


def expected_ids(grid: list[int], to_id: Any) -> list[int]:
    rows, cols = grid[2:]
    names = ["<low_res_im_start>", *["<im_patch>"] * 196, "<im_end>", "<im_start>"]
    names += [*["<im_patch>"] * cols, "<im_col>"] * rows + ["<im_end>"]
    return [to_id(name) for name in names]


@pytest.mark.parametrize(
    "record", one_of_each_tiling(), ids=lambda r: "x".join(map(str, r["output"]["tiling"]))
)
def test_pixels_and_tokens(record: dict[str, Any]) -> None:
    given, expected = record["input"], record["output"]
    processor = _processor()
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (given["height"], given["width"], 3), np.uint8)
    inputs = image_inputs(processor, [picture], given["max_crops"])
    pixels = expected_patches(picture, expected["tiling"], expected["canvas"])
    assert inputs.patches.shape == pixels.shape
    assert np.abs(inputs.patches - pixels).max() < 1e-6
    to_id = processor.tokenizer.convert_tokens_to_ids
    assert list(inputs.token_ids) == expected_ids(expected["grid"], to_id)


@pytest.mark.parametrize("mean", [[0.5, 0.5, 0.5], [0.48, 0.45, 0.4]])
def test_frames_of_the_models_size_match_the_native_processor(mean: list[float]) -> None:
    """The fast path for frames of the model's size is bit-identical, also for several clips."""
    random = np.random.default_rng(2)
    clips = [
        torch.from_numpy(random.integers(0, 256, (count, 3, CROP, CROP), np.uint8))
        for count in (3, 2)
    ]
    for videos in (clips, clips[:1]):
        _same(videos, mean)


def _same(clips: list[torch.Tensor], mean: list[float]) -> None:
    ours, theirs = (
        kind(image_mean=mean, image_std=[0.5, 0.25, 0.5], do_rescale=True, do_normalize=True)(
            videos=clips, do_sample_frames=False, do_resize=True, return_tensors="pt"
        )
        for kind in (ExactVideoProcessor, Molmo2VideoProcessor)
    )
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
        assert ours[name].dtype == theirs[name].dtype
