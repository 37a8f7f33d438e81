"""The two records that leave this room: one encoded sample, and the batch the model is fed.

Shapes used in this file:

    N  tokens of a sample          B  rows of a batch        L  longest row
    C  crops (images) and frames   P  patches of a crop      D  numbers of a patch (14·14·3)
    T  vision tokens (`<im_patch>`)                          K  patches pooled into a token

Targets are stored explicitly and are **already shifted**: ``target_ids[i]`` is what the model must
say after having read ``input_ids[:i + 1]``. No later stage shifts or masks anything; a target with
weight 0 is not trained. (In a message tree the last token of a branch is followed by another
branch, so a target could not be found by shifting.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

IGNORED_ID = -100
NO_PATCH = -1


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

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.input_ids)

    @property
    def num_supervised(self) -> int:
        """Targets that carry weight."""
        return int(np.count_nonzero(self.loss_weights))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass reads; rows are padded on the right.

    ``example_ids`` is -1 on padding, otherwise the number of the example within its row: tokens of
    different examples never see each other. The other ``(B, L)`` fields are those of
    `EncodedSample`; ``patches (ΣC, P, D)`` and ``pooling (ΣT, K)`` run over all rows in order.
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

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The same batch on another device (the hook Lightning moves batches with)."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
            for field in fields(self)
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (the hook `DataLoader` pins with)."""
        pinned = {field.name: getattr(self, field.name).pin_memory() for field in fields(self)}
        return replace(self, **pinned)
