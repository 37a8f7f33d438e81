"""Small tensors of numbers stay real where everything else is fake: a torch dispatch mode.

A fake tensor has a shape and no contents, so code that asks how many tokens are vision tokens, or
picks the supervised positions, stops there. Such questions are asked of token ids, masks and places
only. These are small and known, so they are computed truly: an operation whose inputs are all real
gives real results, and where real meets fake the result is fake, with exact shapes. That lets the
very code of training run, with its data-dependent indices.

Losses and norms are fake; who reads one as a Python number gets 1.0, which decides no shape.

What it does not do: keep large tables real (the mask of 16k x 16k pairs is fake).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from molmo_tune.planning.memory_tracker import tensors_in

MOST_NUMBERS = 2**22
_MOST_FLOATS = 2**12
_READ_NUMBER = torch.ops.aten._local_scalar_dense.default


class ConcreteTensors(TorchDispatchMode):
    """To be entered inside of a `FakeTensorMode`."""

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
            args, kwargs = tree_map_only(torch.Tensor, self._faked, (_places(args), kwargs))
        return func(*args, **kwargs)

    def _is_known(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> bool:
        return _stays_small(tensors) if tensors else _makes_numbers(func, args, kwargs)

    def _faked(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        fake: torch.Tensor = self._fake_mode.from_tensor(tensor, static_shapes=True)
        return fake


def _stays_small(tensors: list[torch.Tensor]) -> bool:
    """Whether no combination of these is large, as a table of all pairs of positions would be."""
    shapes = [tensor.shape for tensor in tensors]
    try:
        return int(math.prod(torch.broadcast_shapes(*shapes))) <= MOST_NUMBERS
    except RuntimeError:  # they are joined or picked from, not combined
        return all(tensor.numel() <= MOST_NUMBERS for tensor in tensors)


def _makes_numbers(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a tensor made of nothing is one of numbers, or so small that it is no matter."""
    made = tensors_in(func(*args, **kwargs))
    return all(x.numel() <= (_MOST_FLOATS if x.is_floating_point() else MOST_NUMBERS) for x in made)


def _places(args: Any) -> Any:
    """With the places that a real mask picks instead of the mask: their number is a shape."""

    def picked(index: Any) -> Any:
        is_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
        if not is_mask or isinstance(index, FakeTensor):
            return [index]
        with unset_fake_temporarily():
            return list(index.nonzero(as_tuple=True))

    def picks(arg: Any) -> Any:
        is_indices = isinstance(arg, list) and any(isinstance(x, torch.Tensor) for x in arg)
        return [place for index in arg for place in picked(index)] if is_indices else arg

    return tuple(picks(arg) for arg in args)
