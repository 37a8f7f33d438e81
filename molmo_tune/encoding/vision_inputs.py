"""Patches, pooling rows and vision tokens of pixels, by the checkpoint's own processors.

The native processors resize, tile and normalize as in training (bilinear without antialiasing on
uint8, then to [-1, 1]). They get frames that this package sampled, and do not sample. Token ids are
built from the grids they return (`vision_tokens`), because the native text code adds a BOS to every
text.

Limitations: neither opens files nor chooses frames (`molmo_tune.media` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.token_stream import SpokenLine, subtitle_ids
from molmo_tune.encoding.vision_tokens import VisionLayout, images_ids, video_ids

Pixels = NDArray[np.uint8]
PIXEL_LIMIT = 1.0 + 1e-4


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """Model inputs of one sample's media.

    ``token_ids``: vision tokens with frame times, image numbers and subtitle.
    ``patches (C, P, D)`` float32 in [-1, 1]; ``pooling (T, K)`` int64, see `EncodedSample`.
    """

    token_ids: tuple[int, ...]
    patches: NDArray[np.float32]
    pooling: NDArray[np.int64]


NO_VISION = VisionInputs((), np.zeros((0, 1, 1), np.float32), np.zeros((0, 1), np.int64))


def image_inputs(
    processor: Processor, images: Sequence[Pixels], max_crops: int | None = None
) -> VisionInputs:
    """Return the inputs of one or several RGB images, each uint8 ``(H, W, 3)``."""
    options = {} if max_crops is None else {"max_crops": max_crops}
    out = processor.image_processor(
        images=list(images), input_data_format="channels_last", return_tensors="pt", **options
    )
    grids = out["image_grids"].tolist()
    layout = VisionLayout.of(processor)
    ids = images_ids(layout, grids, processor.tokenizer)
    return _checked(ids, out["pixel_values"], out["image_token_pooling"], layout)


def video_inputs(
    processor: Processor,
    frames: Pixels,
    times_s: Sequence[float],
    subtitle: str | Sequence[SpokenLine] = "",
) -> VisionInputs:
    """Return the inputs of one video.

    Args:
        processor: the checkpoint's processor.
        frames: uint8 ``(n, H, W, 3)``, upright RGB, one per time.
        times_s: the n target times, in seconds from the start of the clip.
        subtitle: finished text, or lines; only those near a frame are kept.
    """
    if len(frames) != len(times_s):
        raise ValueError(f"{len(frames)} frames, but {len(times_s)} times")
    clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    out = processor.video_processor(videos=[clip], do_sample_frames=False, return_tensors="pt")
    _, rows, cols = out["video_grids"][0].tolist()
    layout = VisionLayout.of(processor)
    ids = video_ids(layout, rows, cols, times_s, processor.tokenizer)
    ids += subtitle_ids(processor.tokenizer, subtitle, times_s)
    return _checked(ids, out["pixel_values_videos"], out["video_token_pooling"], layout)


def _checked(
    ids: list[int], patches: torch.Tensor, pooling: torch.Tensor, layout: VisionLayout
) -> VisionInputs:
    """Return the inputs, after two checks that catch a processor with wrong settings."""
    num_patch_tokens = ids.count(layout.patch)
    if num_patch_tokens != len(pooling):
        raise ValueError(f"{num_patch_tokens} <im_patch> tokens, but {len(pooling)} pooling rows")
    largest = max(map(abs, map(float, patches.aminmax())))
    if largest > PIXEL_LIMIT:
        raise ValueError(
            f"pixel values reach {largest:.1f}, expected [-1, 1]: the checkpoint's "
            "preprocessor files do not turn on rescaling and normalization"
        )
    return VisionInputs(
        tuple(ids),
        patches.numpy().astype(np.float32, copy=False),
        pooling.numpy().astype(np.int64),
    )
