"""Which memory is alive, byte by byte, while tensors are computed: a torch dispatch mode.

Every operation's results are looked at. A storage that was not seen before is entered with its size
and the name of the account that is open; it leaves when Python frees it, as it does on a device. So
the highest sum is the peak that a run has, and the accounts say what it was made of. Storages are
rounded up to the 512 bytes that PyTorch's CUDA allocator hands out.

Real and fake tensors are entered alike, which is how the tests compare a forecast with a run.

What it does not do: look into an operation (what some take inside is in `within`), or see the
allocator's gaps and the libraries' workspaces, for which `cards` leaves room.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from molmo_tune.planning.workspace import bytes_within

BLOCK_BYTES = 512
OTHER = "other"
_ASKS_DEVICE = torch.ops.prim.device.default


class _Entry(NamedTuple):
    account: str
    num_bytes: int
    reference: weakref.ref[torch.UntypedStorage]  # to be kept, or nothing is called at the end


class MemoryTracker(TorchDispatchMode):
    """Live bytes by account.

    ``peak_bytes`` is their highest sum since `begin`, ``at_peak`` the accounts at that moment.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._entries: dict[int, _Entry] = {}
        self._account = OTHER
        self._sum = 0
        self.live: Counter[str] = Counter()
        self.begin()

    def begin(self) -> None:
        """Forget the peak until now."""
        self.peak_bytes, self.at_peak = self._sum, Counter(self.live)

    def open(self, account: str) -> None:
        """What is entered from now on belongs to this account."""
        self._account = account

    def enter(self, account: str, tensors: Iterable[torch.Tensor]) -> None:
        """Book tensors that exist already, also those that stand in another account."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._strike(id(storage))
            self._book(storage, account)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ASKS_DEVICE and isinstance(args[0], FakeTensor):  # more than half of all calls
            return args[0].fake_device
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            if id(storage) not in self._entries:
                self._book(storage, self._account)
        self._note_peak(bytes_within(func, args))
        return result

    def _book(self, storage: torch.UntypedStorage, account: str) -> None:
        num_bytes = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        key = id(storage)  # Python keeps one object per storage while that lives
        reference = weakref.ref(storage, lambda _: self._strike(key))
        self._entries[key] = _Entry(account, num_bytes, reference)
        self.live[account] += num_bytes
        self._sum += num_bytes
        self._note_peak()

    def _note_peak(self, passing_bytes: int = 0) -> None:
        if self._sum + passing_bytes > self.peak_bytes:
            self.peak_bytes, self.at_peak = self._sum + passing_bytes, Counter(self.live)
            self.at_peak[self._account] += passing_bytes

    def _strike(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.live[entry.account] -= entry.num_bytes
            self._sum -= entry.num_bytes


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors among an operation's arguments or results, which lie in lists at most."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)
