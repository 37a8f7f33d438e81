"""The records that leave this subpackage: one encoded sample, and the batch the model reads.

Shapes used in this file:

    N  tokens of a sample          B  rows of a batch        L  longest row
    C  crops (images) and frames   P  patches of a crop      D  values of a patch (14·14·3)
    T  vision tokens (`<im_patch>`)                          K  patches pooled into a token

Targets are stored explicitly and are **already shifted**: ``target_ids[i]`` is the token that the
model must predict from ``input_ids[:i + 1]``. No later stage shifts or masks anything; a target
with weight 0 is not trained. (Shifting could not find the target of the last token of a branch in
a message tree, because the next branch follows it.)

Each sample carries where its media came from (`Opening`), so that a run counts exactly the media it
trained on. With a cache of vision features (`molmo_tune.model.feature_cache`), each sample's media
form a `VisionPiece`, which carries its features instead of patches once they are cached.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

IGNORED_ID = -100
NO_PATCH = -1

Origin = Literal["file", "frame_cache", "feature_cache", "memory", "nowhere"]


@dataclass(frozen=True, slots=True)
class Opening:
    """How one sample's media were opened.

    Args:
        path: the media file; the first one of several images.
        origin: source of the frames or features; ``nowhere`` if the file does not open.
        fault: why the file does not open.
        unstored: why a cache could not store the frames or features.
    """

    path: str
    origin: Origin
    fault: str = ""
    unstored: str = ""


class VisionPiece(NamedTuple):
    """The vision tokens of one sample, for the feature cache.

    ``key``: cache key. ``is_kept``: the features came from the cache, so there are no patches.
    """

    num_tokens: int
    num_crops: int
    key: str
    is_kept: bool


_NO_FEATURES = np.zeros((0, 0), np.uint16)


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample as arrays, or several in one row (`molmo_tune.encoding.packing.pack`).

    Args:
        sample_id: id of the label record; for a pack, all ids, separated by spaces.
        input_ids: ``(N,)`` int64.
        target_ids: ``(N,)`` int64; `IGNORED_ID` where nothing follows.
        loss_weights: ``(N,)`` float32, one per target, 0 outside of answers.
        position_ids: ``(N,)`` int64.
        branch_ids: ``(N,)`` int64, 0 for the shared prefix, 1, 2, … for the branches of a tree.
        example_ids: ``(N,)`` int64, 0 except in a pack, which numbers its examples from 0.
        is_vision: ``(N,)`` bool, tokens that attend to each other in both directions.
        patches: ``(C, P, D)`` float32 in [-1, 1].
        pooling: ``(T, K)`` int64, patch indices into the flattened ``C·P``, `NO_PATCH` = none.
        openings: how the media were opened; empty outside of training.
        pieces: with a feature cache, one per sample with vision tokens.
        features: ``(T', d)`` bits of bfloat16 numbers, of the pieces with ``is_kept``.
    """

    sample_id: str
    input_ids: NDArray[np.int64]
    target_ids: NDArray[np.int64]
    loss_weights: NDArray[np.float32]
    position_ids: NDArray[np.int64]
    branch_ids: NDArray[np.int64]
    example_ids: NDArray[np.int64]
    is_vision: NDArray[np.bool_]
    patches: NDArray[np.float32]
    pooling: NDArray[np.int64]
    openings: tuple[Opening, ...] = ()
    pieces: tuple[VisionPiece, ...] = ()
    features: NDArray[np.uint16] = field(default_factory=lambda: _NO_FEATURES)

    @property
    def num_tokens(self) -> int:
        """Number of tokens (N)."""
        return len(self.input_ids)

    @property
    def is_quarantined(self) -> bool:
        """Whether this replaces a sample whose media do not open."""
        return any(opening.fault for opening in self.openings)

    @property
    def num_supervised(self) -> int:
        """Number of targets with loss weight."""
        return int(np.count_nonzero(self.loss_weights))


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one forward pass; rows are padded on the right.

    ``example_ids`` is -1 on padding, otherwise the number of the example within its row: tokens of
    different examples never attend to each other. The other ``(B, L)`` fields have the same meaning
    as in `EncodedSample`. ``patches (ΣC, P, D)``, ``pooling (ΣT, K)``, ``openings``, ``pieces`` and
    ``features (ΣT', d)`` (bfloat16) cover all rows in order.
    """

    input_ids: torch.Tensor
    target_ids: torch.Tensor
    loss_weights: torch.Tensor
    position_ids: torch.Tensor
    branch_ids: torch.Tensor
    example_ids: torch.Tensor
    is_vision: torch.Tensor
    patches: torch.Tensor
    pooling: torch.Tensor
    openings: tuple[Opening, ...] = ()
    pieces: tuple[VisionPiece, ...] = ()
    features: torch.Tensor = field(
        default_factory=lambda: torch.zeros((0, 0), dtype=torch.bfloat16)
    )

    @property
    def num_crops(self) -> int:
        """Number of image crops and video frames, with those that only have cached features."""
        return len(self.patches) + sum(p.num_crops for p in self.pieces if p.is_kept)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on another device (Lightning's hook for moving batches)."""
        moved = {
            name: tensor.to(device, non_blocking=non_blocking)
            for name, tensor in self.tensors().items()
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (`DataLoader`'s hook for pinning)."""
        pinned = {name: tensor.pin_memory() for name, tensor in self.tensors().items()}
        return replace(self, **pinned)

    def tensors(self) -> dict[str, Any]:
        """Return all tensors by name."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
