"""Take what an iterator gives from a thread of its own, and never wait longer than agreed.

Decoders are C libraries that can hang on a broken file or a dead network mount, where no exception
reaches them. So a file's pictures are produced in a thread (the libraries release the interpreter)
and taken from a short queue; when nothing comes in time, the file is given up. The thread is then
left behind: it ends with the process at the latest.

What it does not do: stop a library that hangs, which nothing can inside one process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from molmo_tune.errors import UserError

_AHEAD = 2  # pictures decoded before they are asked for
_Thing = TypeVar("_Thing")


def in_background(things: Iterator[_Thing], timeout_s: float, where: Path) -> Iterator[_Thing]:
    """The same things in the same order, errors included.

    Args:
        things: consumed in another thread.
        timeout_s: longest wait for the next one.
        where: the file, for the message.

    Raises:
        UserError: nothing came in time.
    """
    ready: queue.Queue[tuple[str, _Thing | BaseException | None]] = queue.Queue(_AHEAD)
    is_left = threading.Event()
    arguments = (things, ready, is_left)
    threading.Thread(target=_produce, args=arguments, daemon=True).start()
    try:
        while True:
            kind, thing = _next(ready, timeout_s, where)
            if kind == "end":
                return
            if isinstance(thing, BaseException):
                raise thing
            yield thing  # type: ignore[misc]
    finally:
        is_left.set()


def _next(
    ready: queue.Queue[tuple[str, _Thing | BaseException | None]], timeout_s: float, where: Path
) -> tuple[str, _Thing | BaseException | None]:
    try:
        return ready.get(timeout=timeout_s)
    except queue.Empty:
        found = f"gives no picture for {timeout_s:g} s"
        fix = "re-encode it or leave it out"
        raise UserError(where, found, "one in time", fix) from None


def _produce(
    things: Iterator[_Thing],
    ready: queue.Queue[tuple[str, _Thing | BaseException | None]],
    is_left: threading.Event,
) -> None:
    def put(kind: str, thing: _Thing | BaseException | None) -> None:
        while not is_left.is_set():
            try:
                ready.put((kind, thing), timeout=0.1)
            except queue.Full:
                continue
            return

    try:
        for thing in things:
            put("thing", thing)
            if is_left.is_set():
                return
        put("end", None)
    except BaseException as error:
        put("error", error)
    finally:
        getattr(things, "close", lambda: None)()  # a generator closes its file
