"""A row of training as far as memory depends on it, and the `Batch` it becomes.

A row is made of samples, a sample of media tokens and conversations, and neither needs a file to be
open. The batch has plausible numbers in the right places: patches, the windows that pool them,
branches and trained positions, so that every part of the model computes what it would.

    BOS  media tokens (patches, then the rest)  branch 1  branch 2 …     then the next sample

What it does not do: know a recipe's data or limits (`counted`), or real token ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import IGNORED_ID, NO_PATCH, Batch, EncodedSample
from molmo_tune.encoding.packing import pack
from molmo_tune.model.molmo import MolmoConfig

_TEXT_ID = _TARGET_ID = 5  # any of the base vocabulary
_MARKS = 2  # a frame or crop stands between two tokens that read in both directions, too


@dataclass(frozen=True, slots=True)
class RowSample:
    """One sample of a row.

    Args:
        num_crops: crops of images, or frames.
        num_patch_tokens: tokens that get a vision feature.
        num_media_tokens: these and all others that stand for the media.
        branch_tokens: of each conversation.
        trained_tokens: of each conversation, at its end.
        pooled: patches that are pooled into a token.
        reaches: whether windows reach from crop to crop, as an image's do.
    """

    num_crops: int
    num_patch_tokens: int
    num_media_tokens: int
    branch_tokens: tuple[int, ...]
    trained_tokens: tuple[int, ...]
    pooled: int
    reaches: bool

    @property
    def num_tokens(self) -> int:
        """All tokens, with the one at the beginning."""
        return 1 + self.num_media_tokens + sum(self.branch_tokens)


@dataclass(frozen=True, slots=True)
class Row:
    """The samples that share a row; ``name`` says which row it is."""

    name: str
    samples: tuple[RowSample, ...]

    @property
    def num_tokens(self) -> int:
        """Of all samples."""
        return sum(sample.num_tokens for sample in self.samples)

    @property
    def num_crops(self) -> int:
        """Crops and frames of all samples."""
        return sum(sample.num_crops for sample in self.samples)

    def batch(self, config: MolmoConfig, batch_size: int, patches: torch.Tensor) -> Batch:
        """So many such rows.

        Args:
            config: native, of the model that will read them.
            batch_size: rows.
            patches: of the shape that `patches_shape` gives, real or fake.
        """
        encoded = pack([_encoded(sample, config) for sample in self.samples])
        numbers = collate([encoded] * batch_size, pad_id=0)
        return Batch(**{**numbers.tensors(), "patches": patches})

    def patches_shape(self, config: MolmoConfig, batch_size: int) -> tuple[int, int, int]:
        """Crops, patches of a crop, and numbers of a patch."""
        vision = config.vision_config
        numbers = vision.patch_size**2 * vision.num_channels
        return batch_size * self.num_crops, vision.num_position_embeddings, numbers


def _encoded(sample: RowSample, config: MolmoConfig) -> EncodedSample:
    """With patches of no numbers: how many there are is all that `pack` and `collate` ask."""
    prefix = 1 + sample.num_media_tokens
    branches = np.repeat(np.arange(1, 1 + len(sample.branch_tokens)), sample.branch_tokens)
    branch_ids = np.concatenate([np.zeros(prefix, np.int64), branches])
    if len(sample.branch_tokens) == 1:  # is no tree
        branch_ids[:] = 0
    trained = np.zeros(sample.num_tokens, bool)
    for end, num in zip(
        prefix + np.cumsum(sample.branch_tokens), sample.trained_tokens, strict=True
    ):
        trained[end - num : end] = True
    places = np.arange(sample.num_tokens)
    is_patch = (places > 0) & (places <= sample.num_patch_tokens)
    num_marks = min(_MARKS * sample.num_crops, sample.num_media_tokens - sample.num_patch_tokens)
    patches = np.zeros((sample.num_crops, config.vision_config.num_position_embeddings, 0))
    return EncodedSample(
        sample_id="",
        input_ids=np.where(is_patch, config.image_patch_id, _TEXT_ID),
        target_ids=np.where(trained, _TARGET_ID, IGNORED_ID),
        loss_weights=trained.astype(np.float32),
        position_ids=places,
        branch_ids=branch_ids,
        example_ids=np.zeros_like(places),
        is_vision=(places > 0) & (places <= sample.num_patch_tokens + num_marks),
        patches=patches.astype(np.float32),
        pooling=_windows(sample, patches.shape[1]),
    )


def _windows(sample: RowSample, num_patches: int) -> NDArray[np.int64]:
    """Pooling rows ``(T, K)``, spread evenly over the crops."""
    tokens = np.arange(sample.num_patch_tokens)
    crops = tokens * sample.num_crops // max(1, sample.num_patch_tokens)
    within = (tokens[:, None] * sample.pooled + np.arange(sample.pooled)) % num_patches
    windows = crops[:, None] * num_patches + within
    if sample.reaches and len(windows):  # one window from the first crop to the last
        windows[0] = NO_PATCH
        windows[0, :2] = 0, sample.num_crops * num_patches - 1
    return windows
