"""The store of arrays under what happens to it: kills, damage, rivals, a full disk."""

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
from molmo_tune.media import array_cache as array_cache
from molmo_tune.media.array_cache import ArrayCache, CachePlace, key_of

KEYS = [key_of("clip", number) for number in range(4)]
LARGE = 1 << 30


def content(key: str, num_bytes: int = 1_500_000) -> NDArray[np.uint8]:
    """What belongs to a name, and to no other."""
    return np.random.default_rng(int(key[:8], 16)).integers(0, 256, (3, num_bytes // 3), np.uint8)


def write_on(folder: Path, seed: int) -> None:
    store, order = ArrayCache(CachePlace(folder, LARGE)), random.Random(seed)
    while True:
        key = order.choice(KEYS)
        store.put(key, content(key))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.npy"))


def test_what_is_put_is_got(tmp_path: Path) -> None:
    store = ArrayCache(CachePlace(tmp_path / "new", LARGE))
    assert store.get(KEYS[0]) is None
    arrays = (content(KEYS[0]), np.zeros((0, 3), np.int16), content(KEYS[2]).T)
    for key, array in zip(KEYS[:3], arrays, strict=True):
        assert store.put(key, array) == ""
        got = store.get(key)
        assert got is not None
        assert got.dtype == array.dtype
        assert np.array_equal(got, array)
    assert isinstance(store.get(KEYS[0]), np.memmap)
    assert key_of("a", 1) != key_of("a", "1") != key_of("a1")


@pytest.mark.slow
def test_writers_killed_two_hundred_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is served is ever other than whole, and what the dead leave is cleaned up."""
    expected = {key: content(key) for key in KEYS}
    chance, reader = random.Random(0), ArrayCache(CachePlace(tmp_path, LARGE))
    num_served = num_parts = 0
    for number in range(200):
        child = os.fork()
        if child == 0:
            write_on(tmp_path, number)
        time.sleep(chance.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for key in KEYS:
            got = reader.get(key)
            num_served += got is not None
            assert got is None or np.array_equal(got, expected[key])
        num_parts = max(num_parts, len(list(tmp_path.glob("??/.part.*"))))
    assert num_served > 200
    assert num_parts > 5  # writers did die in the middle
    assert reader.num_damaged == 0
    monkeypatch.setattr(array_cache, "_PART_AGE_S", 0.0)
    reader._remove_dead_parts()
    assert not list(tmp_path.glob("??/.part.*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "another's"])
def test_damaged_entries_are_missing_ones(damage: str, tmp_path: Path) -> None:
    """What a power cut or a bad disk makes of an entry."""
    store = ArrayCache(CachePlace(tmp_path, LARGE))
    for key in KEYS[:2]:
        store.put(key, content(key))
    path = store._path(KEYS[0])
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    made = {
        "cut": whole[: len(whole) // 2],
        "flipped": bytes(flipped),
        "empty": b"",
        "text": b"text",
        "another's": store._path(KEYS[1]).read_bytes(),
    }
    path.write_bytes(made[damage])
    assert store.get(KEYS[0]) is None
    assert store.num_damaged == 1
    assert not path.exists()
    assert store.get(KEYS[1]) is not None


def test_a_part_of_a_living_writer_stays(tmp_path: Path) -> None:
    program = (
        "import sys, fcntl, pathlib\n"
        "file = open(sys.argv[1], 'rb'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    part, dead = tmp_path / "ab" / ".part.living", tmp_path / "ab" / ".part.dead"
    part.parent.mkdir()
    for path in (part, dead):
        path.touch()
        os.utime(path, (1000, 1000))
    run = [sys.executable, "-c", program, str(part)]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"locked\n"
        ArrayCache(CachePlace(tmp_path, LARGE))._remove_dead_parts()
        assert part.exists()
        assert not dead.exists()
        writer.communicate()
    ArrayCache(CachePlace(tmp_path, LARGE))._remove_dead_parts()
    assert not part.exists()


def test_rivals_write_and_evict_at_once(tmp_path: Path) -> None:
    """Three writers in a store that holds half of what they write; all that is served is whole."""
    keys = [key_of("rival", number) for number in range(12)]
    cap = 6 * 150_000
    children = []
    for number in range(3):
        child = os.fork()
        children.append(child)
        if child == 0:
            store, order = ArrayCache(CachePlace(tmp_path, cap)), random.Random(number)
            for _ in range(150):
                key = order.choice(keys)
                got = store.get(key)
                if got is not None and not np.array_equal(got, content(key, 150_000)):
                    os._exit(1)
                if got is None and store.put(key, content(key, 150_000)):
                    os._exit(2)
            os._exit(3 if store.num_damaged else 0)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 1.35 * cap


def test_the_entry_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = ArrayCache(CachePlace(tmp_path, 420_000))
    for age, key in enumerate(KEYS[:2]):
        store.put(key, content(key, 180_000))
        os.utime(store._path(key), (1000 + age, 1000 + age))
    assert store.get(KEYS[0]) is not None  # so it is the younger one now
    assert store.put(KEYS[2], content(KEYS[2], 180_000)) == ""
    assert [store.get(key) is not None for key in KEYS[:3]] == [True, False, True]
    assert store.num_evicted == 1
    assert store.put(KEYS[3], content(KEYS[3], 600_000)) == "it is larger than the cache"
    assert store.num_unstored == 1


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArrayCache(CachePlace(tmp_path, LARGE))

    def full(file: Any, array: Any, **_: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert store.put(KEYS[0], content(KEYS[0])) == "No space left on device"
    assert store.num_unstored == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.get(KEYS[0]) is None


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = ArrayCache(CachePlace(tmp_path / "file" / "cache", LARGE))
    with pytest.raises(UserError, match=r"data\.frame_cache.*cannot be written"):
        store.require("data.frame_cache.dir")
    assert store.put(KEYS[0], content(KEYS[0]))
    assert store.get(KEYS[0]) is None
