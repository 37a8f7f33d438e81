"""Packs of a data set: the packer over its items, and how full the rows become.

Two things are added to `packing`: the endless order in which items arrive, and figures for the
user, who should know before training how many samples an optimizer step will hold. A pool is never
larger than the data set, so a small one does not fill rows with its own repetitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from molmo_tune.encoding.items import Item
from molmo_tune.encoding.packing import POOL_SIZE, Packer, PackerState, Size
from molmo_tune.encoding.sampler import ItemSampler

MEASURED_PACKS = 200


@dataclass(frozen=True, slots=True)
class PackFigures:
    """How full rows are, as shares of the limits; `fill` is that of the fuller of the two."""

    num_samples: int
    samples_per_pack: float
    token_fill: float
    crop_fill: float
    fill: float

    @property
    def packs_per_pass(self) -> float:
        """Rows that hold every sample once."""
        return self.num_samples / self.samples_per_pack

    def __str__(self) -> str:
        return (
            f"{self.num_samples} sequences in about {self.packs_per_pass:.0f} packs, "
            f"{self.samples_per_pack:.1f} in each, {self.fill:.1%} full "
            f"({self.token_fill:.1%} of tokens, {self.crop_fill:.1%} of crops)"
        )


def sizes_of(items: Sequence[Item]) -> list[Size]:
    """What each item takes of a row."""
    return [Size(item.num_tokens, item.num_crops) for item in items]


def plan_packs(
    sizes: Sequence[Size], limits: Size, order: ItemSampler, state: PackerState | None = None
) -> Packer:
    """The packer over items of these sizes in this order."""
    pool_size = min(POOL_SIZE, len(sizes))
    return Packer(lambda place: sizes[order.item_at(place)], limits, pool_size, state)


def measure_packs(
    sizes: Sequence[Size], limits: Size, order: ItemSampler, num_packs: int = MEASURED_PACKS
) -> PackFigures:
    """Figures of some packs, after the pool has settled (the small samples go first)."""
    packer = plan_packs(sizes, limits, order)
    packs = [packer.next_pack() for _ in range(POOL_SIZE + num_packs)][POOL_SIZE:]
    used = np.array(
        [np.sum([sizes[order.item_at(place)] for place in pack], axis=0) for pack in packs]
    )
    shares = used / np.array(limits)
    return PackFigures(
        num_samples=len(sizes),
        samples_per_pack=sum(map(len, packs)) / num_packs,
        token_fill=float(shares[:, 0].mean()),
        crop_fill=float(shares[:, 1].mean()),
        fill=float(shares.max(axis=1).mean()),
    )
