"""Work done by threads before it is asked for: reading, merging and writing overlap.

A merge reads some rows, computes and writes them; one after the other, disk and processors wait for
each other in turn. Reading, writing and PyTorch's kernels release the interpreter's lock, so
threads are enough. Each computes with one thread of PyTorch's own: two pieces on a processor each
were merged several times as fast as one piece on both, which wait for each other after every
operation.

What it does not do: results out of order, or more of them in memory than twice the threads.
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
    """The results of the jobs, in order.

    What a job raises is raised here, in its place. A caller that stops early waits for the jobs
    under way; nothing runs on behind it.
    """
    num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    before = torch.get_num_threads()
    threads = ThreadPoolExecutor(
        num_threads, "ahead", initializer=torch.set_num_threads, initargs=(1,)
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(threads.submit(job))
            if len(waiting) > 2 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # the threads' number became that of new threads
