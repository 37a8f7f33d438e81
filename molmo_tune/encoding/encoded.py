"""The records that leave this room: one encoded sample, and the batch the model is fed.

Shapes used in this file:

    N  tokens of a sample          B  rows of a batch        L  longest row
    C  crops (images) and frames   P  patches of a crop      D  numbers of a patch (14·14·3)
    T  vision tokens (`<im_patch>`)                          K  patches pooled into a token

Targets are stored explicitly and are **already shifted**: ``target_ids[i]`` is what the model must
say after having read ``input_ids[:i + 1]``. No later stage shifts or masks anything; a target with
weight 0 is not trained. (In a message tree the last token of a branch is followed by another
branch, so a target could not be found by shifting.)

Where the media came from travels along (`Opening`): only what was really trained on is counted.
With a cache of vision features (`molmo_tune.model.feature_cache`) every medium is a `VisionPiece`,
and those whose features are known bring them instead of patches.
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
        path: of the medium, of several images the first.
        origin: where its pictures or features came from; ``nowhere``: it does not open.
        fault: why it does not open.
        unstored: why a cache could not keep it.
    """

    path: str
    origin: Origin
    fault: str = ""
    unstored: str = ""


class VisionPiece(NamedTuple):
    """The vision tokens of one sample, for the cache of features.

    ``key``: name in the cache. ``is_kept``: the features are there, and patches are not.
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
        sample_id: the id of the label record; of a pack all of them, separated by blanks.
        input_ids: ``(N,)`` int64.
        target_ids: ``(N,)`` int64; `IGNORED_ID` where nothing follows.
        loss_weights: ``(N,)`` float32, one per target, 0 for everything that is not an answer.
        position_ids: ``(N,)`` int64.
        branch_ids: ``(N,)`` int64, 0 for the shared prefix, 1, 2, … for the branches of a tree.
        example_ids: ``(N,)`` int64, 0 everywhere but in a pack, whose examples count from 0.
        is_vision: ``(N,)`` bool, tokens that attend to each other in both directions.
        patches: ``(C, P, D)`` float32 in [-1, 1].
        pooling: ``(T, K)`` int64, numbers of patches in the flattened ``C·P``, `NO_PATCH` = none.
        openings: how the media were opened; empty where nobody counts.
        pieces: with a cache of features, one per medium with vision tokens.
        features: ``(T', d)`` bfloat16 numbers as bits, of the pieces that are kept.
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
        """N."""
        return len(self.input_ids)

    @property
    def is_quarantined(self) -> bool:
        """Whether it stands in for a sample whose media do not open."""
        return any(opening.fault for opening in self.openings)

    @property
    def num_supervised(self) -> int:
        """Targets that carry weight."""
        return int(np.count_nonzero(self.loss_weights))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass reads; rows are padded on the right.

    ``example_ids`` is -1 on padding, otherwise the number of the example within its row: tokens of
    different examples never see each other. The other ``(B, L)`` fields are those of
    `EncodedSample`; ``patches (ΣC, P, D)`` and ``pooling (ΣT, K)`` run over all rows in order, as
    do ``openings``, ``pieces`` and ``features (ΣT', d)`` bfloat16.
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
        """Crops of images and frames of videos, whether they are here or only their features."""
        return len(self.patches) + sum(p.num_crops for p in self.pieces if p.is_kept)

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The same batch on another device (the hook Lightning moves batches with)."""
        moved = {
            name: tensor.to(device, non_blocking=non_blocking)
            for name, tensor in self.tensors().items()
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (the hook `DataLoader` pins with)."""
        pinned = {name: tensor.pin_memory() for name, tensor in self.tensors().items()}
        return replace(self, **pinned)

    def tensors(self) -> dict[str, Any]:
        """All its tensors by name."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
