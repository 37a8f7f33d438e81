"""A batch row, as far as memory depends on it, and the `Batch` it becomes.

A row consists of samples, a sample of media tokens and conversations; no file is opened. The batch
has plausible numbers in the right places: patches, their pooling windows, branches and trained
positions, so that every component of the model computes what it would in training.

    BOS  media tokens (patches, then the rest)  branch 1  branch 2 …     then the next sample

Limitations: token ids are not real; `workload` has a recipe's data and limits.
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

_TEXT_ID = _TARGET_ID = 5  # any id of the base vocabulary
_MARKS = 2  # start and end token of a frame or crop, which also read in both directions


@dataclass(frozen=True, slots=True)
class RowSample:
    """A sample of a row.

    Args:
        num_crops: crops of images, or frames.
        num_patch_tokens: tokens that get a vision feature.
        num_media_tokens: all tokens of the media, these included.
        branch_tokens: tokens of each conversation.
        trained_tokens: trained tokens of each conversation, at its end.
        pooled: patches per pooled token.
        reaches: whether pooling windows span crops, as in an image.
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
        """All tokens, BOS included."""
        return 1 + self.num_media_tokens + sum(self.branch_tokens)


@dataclass(frozen=True, slots=True)
class Row:
    """The samples of a row; ``name``: which row it is."""

    name: str
    samples: tuple[RowSample, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples."""
        return sum(sample.num_tokens for sample in self.samples)

    @property
    def num_crops(self) -> int:
        """Crops and frames of all samples."""
        return sum(sample.num_crops for sample in self.samples)

    def batch(self, config: MolmoConfig, batch_size: int, patches: torch.Tensor) -> Batch:
        """Return a batch of equal rows.

        Args:
            config: native, of the model.
            batch_size: number of rows.
            patches: real or fake, in the shape of `patches_shape`.
        """
        encoded = pack([_encoded(sample, config) for sample in self.samples])
        numbers = collate([encoded] * batch_size, pad_id=0)
        return Batch(**{**numbers.tensors(), "patches": patches})

    def patches_shape(self, config: MolmoConfig, batch_size: int) -> tuple[int, int, int]:
        """Return ``(C, P, D)``: crops, patches per crop, values per patch."""
        vision = config.vision_config
        numbers = vision.patch_size**2 * vision.num_channels
        return batch_size * self.num_crops, vision.num_position_embeddings, numbers


def _encoded(sample: RowSample, config: MolmoConfig) -> EncodedSample:
    """Encode a sample with empty patches; `pack` and `collate` only count them."""
    prefix = 1 + sample.num_media_tokens
    branches = np.repeat(np.arange(1, 1 + len(sample.branch_tokens)), sample.branch_tokens)
    branch_ids = np.concatenate([np.zeros(prefix, np.int64), branches])
    if len(sample.branch_tokens) == 1:  # not a tree
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
    """Return pooling rows ``(T, K)``, spread evenly over the crops."""
    tokens = np.arange(sample.num_patch_tokens)
    crops = tokens * sample.num_crops // max(1, sample.num_patch_tokens)
    within = (tokens[:, None] * sample.pooled + np.arange(sample.pooled)) % num_patches
    windows = crops[:, None] * num_patches + within
    if sample.reaches and len(windows):  # one window from the first crop to the last
        windows[0] = NO_PATCH
        windows[0, :2] = 0, sample.num_crops * num_patches - 1
    return windows
