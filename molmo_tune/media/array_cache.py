"""Folder of cached arrays that many processes share and that never returns a damaged one.

An entry is a plain ``.npy`` file named by the digest of *everything that determines its content*,
with a checksum after the array. It is written under a temporary name and renamed when complete, so
a reader finds all of it or nothing. An entry damaged by a power cut fails the checksum, counts as
missing and is removed. Entries are returned memory-mapped, so loader processes share one copy in
memory.

    put   `.part.*` (locked by its writer) → array, checksum → renamed to `ab/abcd….npy`
    get   verify checksum → map, set the entry's time to now
    full  evict the least recently used entries, and part files that no live writer locks

The size cap is exact to 1% per writer, because the folder is not measured before every write. A
failed write (full disk, no permission) is counted and leaves no file.

Limitations: it does not compute or interpret content, or fall back to another folder.
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

_TRAILER = b"crc32 %08x\n"
_TRAILER_BYTES = len(_TRAILER % 0)
_REMEASURE_FRACTION = 0.01  # of the cap, written before the folder is measured again
_HEADROOM_FRACTION = 0.05  # of the cap, freed at once
_PART_AGE_S = 10.0  # a live writer has locked its part file by then


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Folder of a cache and its maximum size in bytes."""

    folder: Path
    max_bytes: int


class _Entry(NamedTuple):
    used_ns: int
    size: int
    path: str


def key_of(*parts: object) -> str:
    """Return an entry's name: the digest of what determines its content (JSON values)."""
    text = json.dumps(parts, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@lru_cache(maxsize=8)
def cache_at(place: CachePlace) -> ArrayCache:
    """Return this process's cache at a place."""
    return ArrayCache(place)


class ArrayCache:
    """Cache of arrays by name.

    Args:
        place: the folder, created by the first `put`, and its maximum size.
    """

    def __init__(self, place: CachePlace) -> None:
        self._folder, self._max_bytes = place.folder, place.max_bytes
        self._known_bytes: int | None = None  # when the folder was last measured
        self._new_bytes = 0  # written by this process since then
        self.num_damaged = self.num_evicted = self.num_failed_writes = 0

    def require(self, key: str) -> None:
        """Check that the folder is writable.

        Args:
            key: recipe key of the folder, for the message.

        Raises:
            UserError: the folder is not writable.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            found = f"{self._folder} cannot be written to ({error.strerror})"
            raise UserError(key, found, fix="name a writable folder or remove the key") from error

    def get(self, key: str) -> NDArray[Any] | None:
        """Return the array, memory-mapped, or None without an intact entry of that name.

        Writing to the array does not change the entry (copy on write).
        """
        path = self._path(key)
        try:
            with path.open("rb") as file:
                trailer = _read_trailer(file)
            array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
            if trailer != _trailer(key, array):
                raise ValueError("checksum mismatch")
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
        """Store an array; return why that failed, or an empty string.

        Two writers of one name write the same content; the later one wins.
        """
        if array.nbytes > self._max_bytes * (1 - _HEADROOM_FRACTION):
            self.num_failed_writes += 1
            return "larger than the cache"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._free_space(array.nbytes)
            self._write(self._path(key), key, np.ascontiguousarray(array))
        except OSError as error:
            self.num_failed_writes += 1
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
                try_lock(file.fileno())  # shows an evicting process that the writer lives
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.write(_trailer(key, array))

    def _free_space(self, num_bytes: int) -> None:
        """Measure the folder when due, and evict entries when it is full."""
        if self._known_bytes is None or self._new_bytes > self._max_bytes * _REMEASURE_FRACTION:
            self._known_bytes, self._new_bytes = sum(e.size for e in self._entries()), 0
        if self._known_bytes + self._new_bytes + num_bytes <= self._max_bytes:
            return
        with _try_lock(self._folder / ".evicting") as is_locked:
            if is_locked:
                self._evict(int(self._max_bytes * (1 - _HEADROOM_FRACTION)) - num_bytes)
        self._known_bytes, self._new_bytes = sum(e.size for e in self._entries()), 0

    def _evict(self, target_bytes: int) -> None:
        self._remove_stale_parts()
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

    def _remove_stale_parts(self) -> None:
        for file in self._files():
            if file.name.startswith(PART_PREFIX):
                with suppress(OSError):
                    if time.time() - file.stat().st_mtime > _PART_AGE_S and _is_dead(file.path):
                        os.unlink(file.path)  # noqa: PTH108

    def _files(self) -> Iterator[os.DirEntry[str]]:
        """Yield the files of the entry folders, whose names are two hex digits."""
        with os.scandir(self._folder) as folders:
            names = [folder.path for folder in folders if len(folder.name) == 2]
        for name in names:
            with os.scandir(name) as files:
                yield from files


def _trailer(key: str, array: NDArray[Any]) -> bytes:
    """Return the checksum line; it covers the name, so a misplaced file is not accepted."""
    start = zlib.crc32(f"{key} {array.dtype.str} {array.shape}".encode())
    return _TRAILER % zlib.crc32(array.reshape(-1).view(np.uint8).data, start)


def _read_trailer(file: BinaryIO) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _TRAILER_BYTES))
    return file.read()


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Yield whether this process got the lock, which the process's end releases."""
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
