"""Packs of a dataset: the packer over its items, and how full the packs become.

This adds two things to `packing`: the endless order in which items arrive, and figures that say
before training how many samples an optimizer step will hold. The pool is never larger than the
dataset, so a small dataset does not fill packs with repetitions of itself.
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
    """How full packs are, as fractions of the limits; `fill` is the larger of the two."""

    num_samples: int
    samples_per_pack: float
    token_fill: float
    crop_fill: float
    fill: float

    @property
    def packs_per_epoch(self) -> float:
        """Number of packs per epoch."""
        return self.num_samples / self.samples_per_pack

    def __str__(self) -> str:
        return (
            f"{self.num_samples} sequences in about {self.packs_per_epoch:.0f} packs, "
            f"{self.samples_per_pack:.1f} in each, {self.fill:.1%} full "
            f"({self.token_fill:.1%} of tokens, {self.crop_fill:.1%} of crops)"
        )


def sizes_of(items: Sequence[Item]) -> list[Size]:
    """Return the size of each item."""
    return [Size(item.num_tokens, item.num_crops) for item in items]


def plan_packs(
    sizes: Sequence[Size], limits: Size, order: ItemSampler, state: PackerState | None = None
) -> Packer:
    """Return a packer over items of these sizes in this order."""
    pool_size = min(POOL_SIZE, len(sizes))
    return Packer(lambda place: sizes[order.item_at(place)], limits, pool_size, state)


def measure_packs(
    sizes: Sequence[Size], limits: Size, order: ItemSampler, num_packs: int = MEASURED_PACKS
) -> PackFigures:
    """Measure some packs after the pool has settled; small samples leave it first."""
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
