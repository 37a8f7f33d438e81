"""A folder of arrays that many processes read and write, and that never serves a damaged one.

An entry is a plain ``.npy`` file, named by the digest of *everything that decides its content*,
with a check sum behind the array. It is written under another name and renamed when it is whole, so
a reader finds all of it or nothing; what a power cut leaves fails the check sum, is taken for
missing and removed. Reading gives a memory-mapped array: entries that several loader processes use
are in memory once.

    put   `.part.*` (locked by its writer) → whole, check sum → renamed to `ab/abcd….npy`
    get   check sum → map, and the entry's time becomes now
    full  entries used longest ago go first, and parts that no living writer locks

The cap holds to a hundredth per writer, because a folder is measured only so often. A write that
fails (full disk, no permission) is counted and leaves nothing behind; the first reason is kept.

What it does not do: make or understand content, or fall back to another folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from molmo_tune.atomic_files import PART_PREFIX, staged_file
from molmo_tune.errors import UserError
from molmo_tune.file_lock import NoLocksError, try_lock

_SEAL = b"crc32 %08x\n"
_SEAL_BYTES = len(_SEAL % 0)
_MEASURED_SHARE = 0.01  # of the cap is written before the folder is measured again
_ROOM_SHARE = 0.05  # of the cap is freed at once
_PART_AGE_S = 10.0  # by then a living writer has locked its part


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where a store is and how large it may become."""

    folder: Path
    max_bytes: int


class _Entry(NamedTuple):
    used_ns: int
    size: int
    path: str


def key_of(*parts: object) -> str:
    """The name of an entry: a digest of all that decides its content (numbers, texts, lists)."""
    text = json.dumps(parts, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@lru_cache(maxsize=8)
def cache_at(place: CachePlace) -> ArrayCache:
    """This process's store at a place."""
    return ArrayCache(place)


class ArrayCache:
    """Arrays by name.

    Args:
        place: made at the first `put`.
    """

    def __init__(self, place: CachePlace) -> None:
        self._folder, self._max_bytes = place.folder, place.max_bytes
        self._known_bytes: int | None = None  # in the folder when it was last measured
        self._new_bytes = 0  # written by this process since then
        self.num_damaged = self.num_evicted = self.num_unstored = 0

    def require(self, key: str) -> None:
        """Check that the folder can be written to.

        Args:
            key: of the recipe, for the message.

        Raises:
            UserError: it cannot.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            found = f"{self._folder} cannot be written to ({error.strerror})"
            raise UserError(key, found, fix="name another folder, or leave the key out") from error

    def get(self, key: str) -> NDArray[Any] | None:
        """The array, mapped; None when there is no whole entry of that name.

        It may be written to without changing the entry.
        """
        path = self._path(key)
        try:
            with path.open("rb") as file:
                seal = _read_seal(file)
            array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
            if seal != _seal(key, array):
                raise ValueError("the check sum is another")
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            self.num_damaged += 1
            with suppress(OSError):
                path.unlink()
            return None
        return array

    def put(self, key: str, array: NDArray[Any]) -> str:
        """Keep an array; returns why it could not be kept, or nothing.

        Two writers of one name write the same content; the later one stays.
        """
        if array.nbytes > self._max_bytes * (1 - _ROOM_SHARE):
            self.num_unstored += 1
            return "it is larger than the cache"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(array.nbytes)
            self._write(self._path(key), key, np.ascontiguousarray(array))
        except OSError as error:
            self.num_unstored += 1
            return error.strerror or type(error).__name__
        self._new_bytes += array.nbytes
        return ""

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npy"

    def _write(self, path: Path, key: str, array: NDArray[Any]) -> None:
        path.parent.mkdir(exist_ok=True)
        # Not synchronized to disk: what a power cut leaves fails the checksum.
        with staged_file(path, sync=False) as part, part.open("wb") as file:
            with suppress(NoLocksError):
                try_lock(file.fileno())  # tells an evicting process that the writer lives
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.write(_seal(key, array))

    def _make_room(self, num_bytes: int) -> None:
        """Measure the folder when that is due, and free some of it when it is full."""
        if self._known_bytes is None or self._new_bytes > self._max_bytes * _MEASURED_SHARE:
            self._known_bytes, self._new_bytes = sum(e.size for e in self._entries()), 0
        if self._known_bytes + self._new_bytes + num_bytes <= self._max_bytes:
            return
        with _alone(self._folder / ".evicting") as is_mine:
            if is_mine:
                self._evict(int(self._max_bytes * (1 - _ROOM_SHARE)) - num_bytes)
        self._known_bytes, self._new_bytes = sum(e.size for e in self._entries()), 0

    def _evict(self, target_bytes: int) -> None:
        self._remove_dead_parts()
        entries = sorted(self._entries())
        excess = sum(entry.size for entry in entries) - target_bytes
        for entry in entries:
            if excess <= 0:
                return
            with suppress(FileNotFoundError):
                os.unlink(entry.path)  # noqa: PTH108
                self.num_evicted += 1
            excess -= entry.size

    def _entries(self) -> Iterator[_Entry]:
        for file in self._files():
            if file.name.endswith(".npy"):
                with suppress(FileNotFoundError):
                    status = file.stat()
                    yield _Entry(status.st_mtime_ns, status.st_size, file.path)

    def _remove_dead_parts(self) -> None:
        for file in self._files():
            if file.name.startswith(PART_PREFIX):
                with suppress(OSError):
                    if time.time() - file.stat().st_mtime > _PART_AGE_S and _is_dead(file.path):
                        os.unlink(file.path)  # noqa: PTH108

    def _files(self) -> Iterator[os.DirEntry[str]]:
        """Of the folders that entries are in, which have names of two digits."""
        with os.scandir(self._folder) as folders:
            names = [folder.path for folder in folders if len(folder.name) == 2]
        for name in names:
            with os.scandir(name) as files:
                yield from files


def _seal(key: str, array: NDArray[Any]) -> bytes:
    """The check sum of a name and an array's bytes, so that no entry stands for another."""
    start = zlib.crc32(f"{key} {array.dtype.str} {array.shape}".encode())
    return _SEAL % zlib.crc32(array.reshape(-1).view(np.uint8).data, start)


def _read_seal(file: BinaryIO) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _SEAL_BYTES))
    return file.read()


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other process is at it; the lock goes with the process."""
    with path.open("wb") as file:
        try:
            is_mine = try_lock(file.fileno())
        except NoLocksError:
            is_mine = True  # two may evict at once, and free a little more than they need
        yield is_mine


def _is_dead(part: str) -> bool:
    """Whether the writer of a part has ended; where files have no locks, as if it had."""
    with open(part, "rb") as file:  # noqa: PTH123
        try:
            return try_lock(file.fileno())
        except NoLocksError:
            return True
