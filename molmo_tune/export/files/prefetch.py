"""Ordered results of a thread pool, so that reading, merging and writing overlap.

In a merge that reads, computes and writes in turn, the disk waits for the CPU and the CPU for the
disk. Reading, writing and PyTorch kernels release the GIL, so threads are enough. Each thread
limits PyTorch to one thread of its own: two pieces on one core each were merged several times as
fast as one piece on two cores, which synchronize after every operation.

Limitations: at most two results per thread are kept in memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")
_MAX_THREADS = 4


def prefetch(jobs: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """Yield the results of the jobs, in order.

    An exception in a job is raised in its place. A caller that stops early waits for the running
    jobs; none runs on in the background.
    """
    num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    before = torch.get_num_threads()
    threads = ThreadPoolExecutor(
        num_threads, "prefetch", initializer=torch.set_num_threads, initargs=(1,)
    )
    pending: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            pending.append(threads.submit(job))
            if len(pending) > 2 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # set_num_threads also sets it for new threads
