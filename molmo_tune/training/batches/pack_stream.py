"""Which packs batch k of a run contains; each process gets its own part.

All processes plan the same packs from the sizes of the items, which takes about a millisecond per
pack, and each decodes only its own. Batch k is a pure function of the seed and k: it follows from
the packer's state before it, or without one from planning everything before it again.

Limitations: planning is in `molmo_tune.encoding.packing`; media are opened by the loaders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from molmo_tune.encoding.pack_plan import plan_packs
from molmo_tune.encoding.packing import PackerState, Size
from molmo_tune.encoding.sampler import ItemSampler

REMEMBERED_BATCHES = 1024
"""Batches whose packer state is kept: loaders run ahead of training, but by fewer."""


class PackStream(Sampler[list[tuple[int, ...]]]):
    """Batches whose rows are packs, as tuples of item numbers.

    Args:
        sizes: of all items.
        limits: tokens and crops of a pack.
        order: in which items arrive.
        batch_size: packs per batch and process.
        num_batches: batches of the run per process.
        first_batch: where to start, for resumed runs.
        state: of the packer before `first_batch`; None: plan up to there again.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        limits: Size,
        order: ItemSampler,
        *,
        batch_size: int,
        num_batches: int,
        first_batch: int = 0,
        state: PackerState | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._sizes, self._limits, self._order = sizes, limits, order
        self.batch_size, self.num_batches, self.first_batch = batch_size, num_batches, first_batch
        self.rank, self.world_size = rank, world_size
        self._first_state = state
        self._states: dict[int, PackerState] = {}

    def __len__(self) -> int:
        """Batches of the whole run, wherever it starts."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        packer = plan_packs(self._sizes, self._limits, self._order, self._first_state)
        per_batch = self.world_size * self.batch_size
        if self._first_state is None:
            for _ in range(self.first_batch * per_batch):
                packer.next_pack()
        self._states = {self.first_batch: packer.state}
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for number in range(self.first_batch, self.num_batches):
            packs = [packer.next_pack() for _ in range(per_batch)]
            self._states[number + 1] = packer.state
            self._states.pop(number - REMEMBERED_BATCHES, None)
            yield [tuple(self._order.item_at(place) for place in pack) for pack in packs[mine]]

    def state_before(self, number: int) -> PackerState | None:
        """Return the packer's state before a batch, if it is still kept."""
        return self._states.get(number)
