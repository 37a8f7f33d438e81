"""Trees of pairs as a torch dataset, and the batches they become, with the reference's values.

The reference's log-probabilities travel with their answers. They are numbers, not a second model:
the reference never changes, so they are computed once before training and not in every step. That
saves the memory and time of a second model, and training cannot change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.encoded import Batch, EncodedSample
from molmo_tune.encoding.items import Item


@dataclass(frozen=True, slots=True)
class PairSample(EncodedSample):
    """An encoded tree of Q pairs; ``reference``: ``(Q, 2)`` float32, chosen and rejected."""

    reference: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))


@dataclass(frozen=True, slots=True)
class PairBatch(Batch):
    """A batch of trees of pairs; ``reference``: ``(ΣQ, 2)`` float32, in the order of the rows."""

    reference: torch.Tensor = field(default_factory=lambda: torch.zeros((0, 2)))


class PairSet(TrainingSet):
    """A dataset of trees of pairs.

    Args:
        items: one per tree.
        references: log-probabilities ``(Q, 2)`` for each tree.
        options: other arguments of `TrainingSet`.

    Raises:
        ValueError: items and references differ in number.
    """

    def __init__(
        self, items: Sequence[Item], *, references: Sequence[NDArray[np.float32]], **options: Any
    ) -> None:
        super().__init__(items, **options)
        if len(items) != len(references):
            raise ValueError(f"{len(items)} trees, but {len(references)} references")
        self._references = tuple(references)

    def __getitem__(self, index: int) -> PairSample:
        """Return the encoded tree; without pairs if its media do not open any more."""
        sample = super().__getitem__(index)
        named = {one.name: getattr(sample, one.name) for one in fields(sample)}
        if sample.is_quarantined:
            return PairSample(**named)
        return PairSample(**named, reference=self._references[index])


def collate_pairs(samples: Sequence[PairSample], *, pad_id: int) -> PairBatch:
    """Join trees into a batch, one row each."""
    batch = collate(samples, pad_id=pad_id)
    named = {one.name: getattr(batch, one.name) for one in fields(batch)}
    reference = np.concatenate([sample.reference for sample in samples])
    return PairBatch(**named, reference=torch.from_numpy(reference))
