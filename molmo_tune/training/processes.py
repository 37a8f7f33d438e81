"""Exchange between the processes of a run; each function also works in a single process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

T = TypeVar("T")


def is_first_process() -> bool:
    """Whether this process creates and fills the run folder; the others find it made."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def has_several() -> bool:
    """Whether PyTorch's process group is up."""
    return dist.is_available() and dist.is_initialized()


def sum_over_processes(values: Sequence[float], device: torch.device) -> Sequence[float]:
    """Return the sum of each value over all processes, in float64."""
    if not has_several():
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    sums: list[float] = total.tolist()
    return sums


def is_true_anywhere(here: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    if not has_several():
        return here
    flag = torch.tensor(int(here), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks."""
    if not has_several():
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
