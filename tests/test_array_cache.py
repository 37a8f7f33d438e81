"""The array cache under killed writers, damage, concurrent writers and a full disk."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from molmo_tune.errors import UserError
from molmo_tune.media import array_cache
from molmo_tune.media.array_cache import ArrayCache, CachePlace, key_of

KEYS = [key_of("clip", number) for number in range(4)]
LARGE = 1 << 30


def content(key: str, num_bytes: int = 1_500_000) -> NDArray[np.uint8]:
    """Return an array that only this name has."""
    return np.random.default_rng(int(key[:8], 16)).integers(0, 256, (3, num_bytes // 3), np.uint8)


def write_forever(folder: Path, seed: int) -> None:
    cache, order = ArrayCache(CachePlace(folder, LARGE)), random.Random(seed)
    while True:
        key = order.choice(KEYS)
        cache.put(key, content(key))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.npy"))


def test_get_returns_what_put_stored(tmp_path: Path) -> None:
    cache = ArrayCache(CachePlace(tmp_path / "new", LARGE))
    assert cache.get(KEYS[0]) is None
    arrays = (content(KEYS[0]), np.zeros((0, 3), np.int16), content(KEYS[2]).T)
    for key, array in zip(KEYS[:3], arrays, strict=True):
        assert cache.put(key, array) == ""
        got = cache.get(key)
        assert got is not None
        assert got.dtype == array.dtype
        assert np.array_equal(got, array)
    assert isinstance(cache.get(KEYS[0]), np.memmap)
    assert key_of("a", 1) != key_of("a", "1") != key_of("a1")


@pytest.mark.slow
def test_two_hundred_killed_writers_leave_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every array returned is complete, and part files of killed writers are removed."""
    expected = {key: content(key) for key in KEYS}
    chance, reader = random.Random(0), ArrayCache(CachePlace(tmp_path, LARGE))
    num_hits = num_parts = 0
    for number in range(200):
        child = os.fork()
        if child == 0:
            write_forever(tmp_path, number)
        time.sleep(chance.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for key in KEYS:
            got = reader.get(key)
            num_hits += got is not None
            assert got is None or np.array_equal(got, expected[key])
        num_parts = max(num_parts, len(list(tmp_path.glob("??/.part.*"))))
    assert num_hits > 200
    assert num_parts > 5  # writers died in the middle
    assert reader.num_damaged == 0
    monkeypatch.setattr(array_cache, "_PART_AGE_S", 0.0)
    reader._remove_stale_parts()
    assert not list(tmp_path.glob("??/.part.*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "another entry"])
def test_damaged_entries_count_as_missing(damage: str, tmp_path: Path) -> None:
    """Entries as a power cut or a bad disk leaves them."""
    cache = ArrayCache(CachePlace(tmp_path, LARGE))
    for key in KEYS[:2]:
        cache.put(key, content(key))
    path = cache._path(KEYS[0])
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    made = {
        "cut": whole[: len(whole) // 2],
        "flipped": bytes(flipped),
        "empty": b"",
        "text": b"text",
        "another entry": cache._path(KEYS[1]).read_bytes(),
    }
    path.write_bytes(made[damage])
    assert cache.get(KEYS[0]) is None
    assert cache.num_damaged == 1
    assert not path.exists()
    assert cache.get(KEYS[1]) is not None


def test_a_part_file_of_a_live_writer_stays(tmp_path: Path) -> None:
    program = (
        "import sys, fcntl, pathlib\n"
        "file = open(sys.argv[1], 'rb'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    part, stale = tmp_path / "ab" / ".part.live", tmp_path / "ab" / ".part.stale"
    part.parent.mkdir()
    for path in (part, stale):
        path.touch()
        os.utime(path, (1000, 1000))
    run = [sys.executable, "-c", program, str(part)]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"locked\n"
        ArrayCache(CachePlace(tmp_path, LARGE))._remove_stale_parts()
        assert part.exists()
        assert not stale.exists()
        writer.communicate()
    ArrayCache(CachePlace(tmp_path, LARGE))._remove_stale_parts()
    assert not part.exists()


def test_concurrent_writers_evict_safely(tmp_path: Path) -> None:
    """Three writers share a cache of half their data; every array returned is complete."""
    keys = [key_of("concurrent", number) for number in range(12)]
    cap = 6 * 150_000
    children = []
    for number in range(3):
        child = os.fork()
        children.append(child)
        if child == 0:
            cache, order = ArrayCache(CachePlace(tmp_path, cap)), random.Random(number)
            for _ in range(150):
                key = order.choice(keys)
                got = cache.get(key)
                if got is not None and not np.array_equal(got, content(key, 150_000)):
                    os._exit(1)
                if got is None and cache.put(key, content(key, 150_000)):
                    os._exit(2)
            os._exit(3 if cache.num_damaged else 0)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 1.35 * cap


def test_the_least_recently_used_entry_is_evicted_first(tmp_path: Path) -> None:
    cache = ArrayCache(CachePlace(tmp_path, 420_000))
    for age, key in enumerate(KEYS[:2]):
        cache.put(key, content(key, 180_000))
        os.utime(cache._path(key), (1000 + age, 1000 + age))
    assert cache.get(KEYS[0]) is not None  # now the more recently used one
    assert cache.put(KEYS[2], content(KEYS[2], 180_000)) == ""
    assert [cache.get(key) is not None for key in KEYS[:3]] == [True, False, True]
    assert cache.num_evicted == 1
    assert cache.put(KEYS[3], content(KEYS[3], 600_000)) == "larger than the cache"
    assert cache.num_failed_writes == 1


def test_a_full_disk_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ArrayCache(CachePlace(tmp_path, LARGE))

    def full(file: Any, array: Any, **_: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert cache.put(KEYS[0], content(KEYS[0])) == "No space left on device"
    assert cache.num_failed_writes == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert cache.get(KEYS[0]) is None


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = ArrayCache(CachePlace(tmp_path / "file" / "cache", LARGE))
    with pytest.raises(UserError, match=r"data\.frame_cache.*cannot be written"):
        cache.require("data.frame_cache.dir")
    assert cache.put(KEYS[0], content(KEYS[0]))
    assert cache.get(KEYS[0]) is None
