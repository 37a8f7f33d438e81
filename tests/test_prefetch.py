"""Work made ahead comes in order, fails in its place and leaves PyTorch's threads as they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from molmo_tune.export.files.prefetch import prefetch


def test_results_come_in_order_whatever_finishes_first() -> None:
    def job(number: int) -> Callable[[], int]:
        return lambda: time.sleep(0.002 * (number % 3 == 0)) or number

    assert list(prefetch(job(n) for n in range(40))) == list(range(40))


def test_few_are_made_ahead_and_each_with_one_thread_of_torch() -> None:
    before, made = torch.get_num_threads(), []

    def jobs() -> Iterator[Callable[[], int]]:
        for number in range(100):
            made.append(number)
            yield torch.get_num_threads if number else lambda: 1

    results = prefetch(jobs())
    assert next(results) == next(results) == 1
    assert len(made) < 20
    results.close()  # type: ignore[attr-defined]
    assert len(made) < 20
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_an_error_is_raised_in_its_place() -> None:
    def broken() -> int:
        raise OSError("no room")

    results = prefetch([lambda: 1, broken, lambda: 3])
    assert next(results) == 1
    with pytest.raises(OSError, match="no room"):
        next(results)
