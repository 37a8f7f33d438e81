"""`prefetch` keeps order, raises errors in place and restores PyTorch's thread count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from molmo_tune.export.files.prefetch import prefetch


def test_results_are_in_order() -> None:
    def job(number: int) -> Callable[[], int]:
        return lambda: time.sleep(0.002 * (number % 3 == 0)) or number

    assert list(prefetch(job(n) for n in range(40))) == list(range(40))


def test_few_jobs_run_ahead_each_with_one_torch_thread() -> None:
    before, started = torch.get_num_threads(), []

    def jobs() -> Iterator[Callable[[], int]]:
        for number in range(100):
            started.append(number)
            yield torch.get_num_threads if number else lambda: 1

    results = prefetch(jobs())
    assert next(results) == next(results) == 1
    assert len(started) < 20
    results.close()  # type: ignore[attr-defined]
    assert len(started) < 20
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_error_is_raised_in_its_place() -> None:
    def broken() -> int:
        raise OSError("disk full")

    results = prefetch([lambda: 1, broken, lambda: 3])
    assert next(results) == 1
    with pytest.raises(OSError, match="disk full"):
        next(results)
