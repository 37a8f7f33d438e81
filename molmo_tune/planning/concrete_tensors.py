"""A torch dispatch mode in which small index tensors stay real while everything else is fake.

A fake tensor has a shape and no contents, so code that counts vision tokens or selects supervised
positions fails on it. Such code reads only token ids, masks and indices. These are small and known,
so they stay real: an operation on real inputs gives a real result, and one on real and fake inputs
gives a fake result with its exact shape. So the code of training runs unchanged, data-dependent
indices included.

Losses and norms are fake; read as a Python number they are 1.0, which affects no shape.

Limitations: large tables do not stay real (the mask of 16k x 16k pairs is fake).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from molmo_tune.planning.memory_tracker import tensors_in

MAX_INTEGERS = 2**22
"""Elements of the largest index tensor or mask that stays real."""
_MAX_FLOATS = 2**12
_READ_NUMBER = torch.ops.aten._local_scalar_dense.default


class ConcreteTensors(TorchDispatchMode):
    """Enter it inside a `FakeTensorMode`."""

    def __init__(self, fake_mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake_mode = fake_mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [*tensors_in(args), *tensors_in(tuple(kwargs.values()))]
        num_fake = sum(isinstance(tensor, FakeTensor) for tensor in tensors)
        if func is _READ_NUMBER and num_fake and tensors[0].is_floating_point():
            return 1.0
        if num_fake == 0 and self._is_known(func, args, kwargs, tensors):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if num_fake < len(tensors):
            args, kwargs = tree_map_only(torch.Tensor, self._faked, (_without_masks(args), kwargs))
        return func(*args, **kwargs)

    def _is_known(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> bool:
        return _stays_small(tensors) if tensors else _makes_small(func, args, kwargs)

    def _faked(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        fake: torch.Tensor = self._fake_mode.from_tensor(tensor, static_shapes=True)
        return fake


def _stays_small(tensors: list[torch.Tensor]) -> bool:
    """Whether no broadcast of these is large, as a table of all pairs of positions would be."""
    shapes = [tensor.shape for tensor in tensors]
    try:
        return int(math.prod(torch.broadcast_shapes(*shapes))) <= MAX_INTEGERS
    except RuntimeError:  # they are concatenated or indexed, not broadcast
        return all(tensor.numel() <= MAX_INTEGERS for tensor in tensors)


def _makes_small(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation without tensor inputs makes small tensors."""
    made = tensors_in(func(*args, **kwargs))
    return all(x.numel() <= (_MAX_FLOATS if x.is_floating_point() else MAX_INTEGERS) for x in made)


def _without_masks(args: Any) -> Any:
    """Replace a real mask among the arguments with its indices, whose number is a shape."""

    def indices_of(index: Any) -> Any:
        is_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
        if not is_mask or isinstance(index, FakeTensor):
            return [index]
        with unset_fake_temporarily():
            return list(index.nonzero(as_tuple=True))

    def replaced(arg: Any) -> Any:
        is_indices = isinstance(arg, list) and any(isinstance(x, torch.Tensor) for x in arg)
        return [one for index in arg for one in indices_of(index)] if is_indices else arg

    return tuple(replaced(arg) for arg in args)
