"""Files and folders that appear complete or not at all.

Content is written under a hidden name next to the target, synchronized to disk (or a power cut
could leave the name with empty files) and then renamed. On any failure it is removed, and the user
gets one clear error: disk full, quota, no permission, folder gone.

    atomic_file(path)     .part.NAME.…           → NAME       one file
    write_json, write_text                                    the same in one call
    atomic_folder(path)   .NAME.unfinished-WORK-… → NAME      many files at once

A killed process cannot remove its hidden folder. So the folder is locked while it is in use; the
kernel releases the lock with the process, and the next call for the same target takes every folder
that nobody holds: if the same work was done in it, it is resumed, otherwise it is removed. The
folder of a process that still runs is locked and stays.

Limitations: the caller must know which files of a resumed folder are complete (`atomic_file` gives
a file its name only then). Where folders cannot be locked (`file_lock`), leftovers of killed
processes stay and are not resumed. Replacing a folder takes two renames; a process killed between
them leaves no folder of that name.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from molmo_tune import __version__
from molmo_tune.errors import UserError
from molmo_tune.file_lock import NoLocksError, try_lock

PART_PREFIX = ".part."
_WORK_LETTERS = 16
_FULL = (errno.ENOSPC, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_part_numbers = itertools.count()


@contextmanager
def staged_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield the hidden path to write to; the file gets its name when the block ends.

    Args:
        path: replaced if it exists. Its folder must exist.
        sync: synchronize to disk first. Without it, a power cut may leave an empty file.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
    """
    part = path.with_name(f"{PART_PREFIX}{path.name}.{os.getpid()}.{next(_part_numbers)}")
    try:
        yield part
        if sync:
            _synchronize_file(part)
        part.replace(path)
        if sync:
            _synchronize_folder(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Like `staged_file`, but make the folder, and report errors to the user.

    Raises:
        UserError: the file cannot be written; `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path, sync=sync) as part:
            yield part
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a text file in UTF-8, complete or not at all; `errors` as in `open`.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", errors=errors)


def write_json(path: Path, contents: Any) -> None:
    """Write a JSON file, complete or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_text(path, json.dumps(contents, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(
    target: Path, work: str = "", keep: Iterable[str] = (), *, replace: bool = False
) -> Iterator[Path]:
    """Yield the hidden folder to write into; it becomes `target` when the block ends.

    Args:
        target: must not exist yet, unless `replace` is set.
        work: a name for what is made from what (`work_name`). The folder of a killed process with
            the same name is resumed; without a name all work starts over.
        keep: glob patterns of the files to keep then, as `atomic_file` wrote them; others are
            removed.
        replace: an existing target is replaced, all its files together.

    Raises:
        UserError: the target exists, its folder cannot be written to, or the disk is full. Nothing
            is left then.
    """
    if not replace:
        require_new(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden, lock = _resume(target, work, keep) or _make_locked(target, work)
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield hidden
        _synchronize_all(hidden)
        _rename(hidden, target, replace=replace)
    except OSError as error:
        raise _cannot_write(target, error) from error
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and error.where.startswith(str(hidden)):
            raise _cannot_write(target, cause) from cause  # users know the target's name only
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def require_new(target: Path) -> None:
    """Check that nothing exists at this path.

    Raises:
        UserError: something does.
    """
    if target.exists():
        raise UserError(target, "already exists", "a new folder", "choose another, or remove it")


def work_name(files: Iterable[Path], *settings: object) -> str:
    """Return a name that changes with any file (path, modification time, size) or setting."""
    states = [(str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    text = repr((__version__, states, settings))
    return hashlib.sha256(text.encode()).hexdigest()[:_WORK_LETTERS]


def _prefix(target: Path) -> str:
    return f".{target.name}.unfinished-"


def _make_locked(target: Path, work: str) -> tuple[Path, int | None]:
    """Make a hidden folder; also return the file descriptor that holds its lock, if locks work."""
    while True:
        hidden = Path(tempfile.mkdtemp(prefix=f"{_prefix(target)}{work}-", dir=target.parent))
        hidden.chmod(0o755)  # mkdtemp gives access to the owner alone
        try:
            lock = _lock(hidden)
        except NoLocksError:
            return hidden, None
        if lock is not None:
            return hidden, lock
        # Another process took it for a leftover in the moment before it was locked.


def _lock(folder: Path) -> int | None:
    """Return the descriptor that locks a folder; None when another process holds it.

    Raises:
        NoLocksError: folders cannot be locked here.
    """
    if sys.platform == "win32":
        raise NoLocksError("folders cannot be opened on Windows")
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        is_locked = try_lock(descriptor) and folder.exists()  # removed before it was locked?
    except OSError:
        os.close(descriptor)
        raise
    if not is_locked:
        os.close(descriptor)
        return None
    return descriptor


def _resume(target: Path, work: str, keep: Iterable[str]) -> tuple[Path, int] | None:
    """Return a leftover of the same work and its lock, if there is one; remove other leftovers."""
    resumed = None
    leftovers = [path for path in target.parent.iterdir() if path.name.startswith(_prefix(target))]
    for leftover in sorted(leftovers):
        try:
            lock = _lock(leftover)
        except NoLocksError:
            return None  # whoever made it may still be using it
        if lock is None:
            continue
        if work and resumed is None and leftover.name.startswith(f"{_prefix(target)}{work}-"):
            resumed = leftover, lock
            kept = {path for pattern in keep for path in leftover.glob(pattern)}
            _remove_all_but(kept, leftover)
        else:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(lock)
    return resumed


def _remove_all_but(kept: set[Path], folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _rename(hidden: Path, target: Path, *, replace: bool) -> None:
    if replace and target.exists():
        old = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        target.rename(old / target.name)
        try:
            hidden.rename(target)
        except OSError:
            (old / target.name).rename(target)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        require_new(target)  # another process may have been faster
        hidden.rename(target)
    _synchronize_folder(target.parent)


def _synchronize_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            _synchronize_folder(path)
        else:
            _synchronize_file(path)
    _synchronize_folder(folder)


def _synchronize_file(path: Path) -> None:
    _synchronize(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)


def _synchronize_folder(path: Path) -> None:
    if sys.platform != "win32":  # where folders cannot be opened
        _synchronize(path, os.O_RDONLY)


def _synchronize(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(target: Path, error: OSError) -> UserError:
    """Return the error that explains to the user why a file or folder could not be written."""
    reason = error.strerror or str(error)
    if error.errno in (*_FULL, errno.EDQUOT):
        what = "disk quota" if error.errno == errno.EDQUOT else "disk"
        found = f"cannot be written: the {what} is full ({reason})"
        fix = "free some or choose another disk; nothing was left behind"
        return UserError(target, found, "free space for all of it", fix)
    place = f": {error.filename}" if error.filename else ""
    fix = "change its permissions or choose another folder" if error.errno in _FORBIDDEN else ""
    if not target.parent.is_dir():
        place, fix = f": no folder {target.parent}", "choose another folder"
    return UserError(target, f"cannot be written ({reason}{place})", fix=fix)
