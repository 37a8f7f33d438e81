"""A folder that is there whole or not at all.

Work happens in a hidden folder beside the target. It is renamed when everything in it is on the
disk (synchronized first, or a power cut could leave the name with empty files), and removed on any
failure. A process that is killed cannot remove its own; so the folder is locked while it is worked
in, the kernel gives the lock up with the process, and the next export to the same target takes what
nobody holds: a folder in which the same work was done is gone on with, any other is removed. The
folder of another export that still runs is locked and stays.

What it does not do: know what in a folder gone on with is whole (`merge`), replace a target that
exists, or work where folders cannot be locked (`flock` is for Linux and macOS; some network drives
lack it, which is told).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from molmo_tune import __version__
from molmo_tune.errors import UserError

_WORK_LETTERS = 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_folder(target: Path, work: str = "", keep: Iterable[str] = ()) -> Iterator[Path]:
    """The hidden folder to write into; it becomes `target` when the block ends without an error.

    Args:
        target: must not exist yet.
        work: a word for what is made from what (`work_name`). The folder of killed work of the same
            name is gone on with; without a name all work begins anew.
        keep: patterns of the files that are kept then, as `atomic_file` wrote them; others go.

    Raises:
        UserError: the target exists, its place cannot be written to, or the disk is full. Nothing
            is left then.
    """
    require_new(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden, lock = _taken_over(target, work, keep) or _make_locked(target, work)
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield hidden
        _synchronize(hidden)
        require_new(target)  # another export may have been faster
        hidden.rename(target)
        _synchronize_one(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(lock)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Where to write a file; it gets its name once its bytes are on the disk."""
    part = path.with_name(path.name + ".part")
    yield part
    _synchronize_one(part)
    part.replace(path)


def require_new(target: Path) -> None:
    """Check that nothing is there yet.

    Raises:
        UserError: something is.
    """
    if target.exists():
        raise UserError(target, "exists already", "a new folder", "choose another, or remove it")


def _prefix(target: Path) -> str:
    return f".{target.name}.unfinished-"


def work_name(files: Iterable[Path], *settings: object) -> str:
    """A word that is another one when a file (by path, time of change and size) or setting is."""
    states = [(str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    text = repr((__version__, states, settings))
    return hashlib.sha256(text.encode()).hexdigest()[:_WORK_LETTERS]


def _make_locked(target: Path, work: str) -> tuple[Path, int]:
    """A new hidden folder and the file descriptor that holds its lock."""
    while True:
        hidden = Path(tempfile.mkdtemp(prefix=f"{_prefix(target)}{work}-", dir=target.parent))
        lock = _lock(hidden)
        if lock is not None:
            hidden.chmod(0o755)  # mkdtemp's is for its owner alone
            return hidden, lock
        # Another export took it for a leftover in the moment before it was locked.


def _lock(folder: Path) -> int | None:
    """The descriptor of a folder that is now ours; None when somebody else holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)  # noqa: PTH116  (removed between opening and locking?)
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _taken_over(target: Path, work: str, keep: Iterable[str]) -> tuple[Path, int] | None:
    """A leftover of the same work, with what is kept of it, and its lock; others are removed."""
    taken = None
    for leftover in sorted(target.parent.iterdir()):
        lock = _lock(leftover) if leftover.name.startswith(_prefix(target)) else None
        if lock is None:
            continue
        if work and taken is None and leftover.name.startswith(f"{_prefix(target)}{work}-"):
            taken = leftover, lock
            _remove_all_but({path for pattern in keep for path in leftover.glob(pattern)}, leftover)
        else:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(lock)
    return taken


def _remove_all_but(kept: set[Path], folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _synchronize(folder: Path) -> None:
    for path in folder.rglob("*"):
        _synchronize_one(path)
    _synchronize_one(folder)


def _synchronize_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(target: Path, error: OSError) -> UserError:
    if error.errno in _FULL:
        return UserError(
            target,
            f"cannot be written: the disk is full ({error.strerror})",
            "room for the whole export",
            "free some or choose another disk; nothing was left behind",
        )
    place = f": {error.filename}" if error.filename else ""
    return UserError(target, f"cannot be written ({error.strerror or error}{place})")
