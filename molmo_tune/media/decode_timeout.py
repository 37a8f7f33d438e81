"""Iteration in another thread, with a timeout for each item.

Decoders are C libraries that can block forever on a broken file or a dead network mount, where no
exception reaches them. So a thread produces a file's frames (the libraries release the GIL), and
the caller takes them from a short queue. When no frame arrives in time, the file is abandoned,
together with its thread, which ends with the process at the latest.

Limitations: a blocked library call is not interrupted; that is impossible inside one process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from molmo_tune.errors import UserError

_PREFETCHED = 2  # frames decoded ahead of the caller
_Item = TypeVar("_Item")


def iterate_in_thread(items: Iterator[_Item], timeout_s: float, where: Path) -> Iterator[_Item]:
    """Yield the same items in the same order, and raise the same errors.

    Args:
        items: iterated in another thread.
        timeout_s: longest wait for the next item, in seconds.
        where: the file, for the message.

    Raises:
        UserError: no item arrived in time.
    """
    ready: queue.Queue[tuple[str, _Item | BaseException | None]] = queue.Queue(_PREFETCHED)
    is_closed = threading.Event()
    arguments = (items, ready, is_closed)
    threading.Thread(target=_produce, args=arguments, daemon=True).start()
    try:
        while True:
            kind, item = _next(ready, timeout_s, where)
            if kind == "end":
                return
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]
    finally:
        is_closed.set()


def _next(
    ready: queue.Queue[tuple[str, _Item | BaseException | None]], timeout_s: float, where: Path
) -> tuple[str, _Item | BaseException | None]:
    try:
        return ready.get(timeout=timeout_s)
    except queue.Empty:
        found = f"no frame within {timeout_s:g} s"
        raise UserError(where, found, fix="re-encode the file or remove it") from None


def _produce(
    items: Iterator[_Item],
    ready: queue.Queue[tuple[str, _Item | BaseException | None]],
    is_closed: threading.Event,
) -> None:
    def put(kind: str, item: _Item | BaseException | None) -> None:
        while not is_closed.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return

    try:
        for item in items:
            put("item", item)
            if is_closed.is_set():
                return
        put("end", None)
    except BaseException as error:
        put("error", error)
    finally:
        getattr(items, "close", lambda: None)()  # a generator closes its file
