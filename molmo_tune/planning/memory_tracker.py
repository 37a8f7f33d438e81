"""A torch dispatch mode that tracks live memory by category, byte by byte.

It looks at the results of every operation. A new storage is added with its size under the current
category, and removed when Python frees it, as on a device. So the highest sum is the peak of a run,
and the categories show what it consists of. Storages are rounded up to the 512-byte blocks of
PyTorch's CUDA allocator.

Real and fake tensors are tracked the same way, which lets the tests compare a forecast with a run.

Limitations: memory inside an operation comes from `workspace`; the allocator's gaps and library
workspaces are not seen (`gpus` adds a margin).
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from molmo_tune.planning.workspace import workspace_bytes

BLOCK_BYTES = 512
OTHER = "other"
_ASKS_DEVICE = torch.ops.prim.device.default


class _Entry(NamedTuple):
    category: str
    num_bytes: int
    reference: weakref.ref[torch.UntypedStorage]  # kept, or its callback is never called


class MemoryTracker(TorchDispatchMode):
    """Live bytes by category.

    ``live``: now. ``peak_bytes``: their highest sum since `reset_peak`; ``at_peak``: by category at
    that moment.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._entries: dict[int, _Entry] = {}
        self._category = OTHER
        self._sum = 0
        self.live: Counter[str] = Counter()
        self.reset_peak()

    def reset_peak(self) -> None:
        """Start a new peak from the memory that is live now."""
        self.peak_bytes, self.at_peak = self._sum, Counter(self.live)

    def set_category(self, category: str) -> None:
        """Count new storages under this category from now on."""
        self._category = category

    def assign(self, category: str, tensors: Iterable[torch.Tensor]) -> None:
        """Count existing tensors under a category, also if they had another one."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._remove(id(storage))
            self._add(storage, category)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ASKS_DEVICE and isinstance(args[0], FakeTensor):  # more than half of all calls
            return args[0].fake_device
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            if id(storage) not in self._entries:
                self._add(storage, self._category)
        self._note_peak(workspace_bytes(func, args))
        return result

    def _add(self, storage: torch.UntypedStorage, category: str) -> None:
        num_bytes = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        key = id(storage)  # Python keeps one object per storage while that lives
        reference = weakref.ref(storage, lambda _: self._remove(key))
        self._entries[key] = _Entry(category, num_bytes, reference)
        self.live[category] += num_bytes
        self._sum += num_bytes
        self._note_peak()

    def _note_peak(self, workspace_bytes: int = 0) -> None:
        if self._sum + workspace_bytes > self.peak_bytes:
            self.peak_bytes, self.at_peak = self._sum + workspace_bytes, Counter(self.live)
            self.at_peak[self._category] += workspace_bytes

    def _remove(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.live[entry.category] -= entry.num_bytes
            self._sum -= entry.num_bytes


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors among an operation's arguments or results, also inside lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)
