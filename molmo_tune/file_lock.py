"""Advisory locks on open files and folders, which the kernel releases when the process ends.

They are `flock`'s, of Linux and macOS. Windows has none on folders, and some network drives have
none at all. There `try_lock` raises `NoLocksError`, and callers leave alone what another process
might be using.
"""

from __future__ import annotations

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class NoLocksError(OSError):
    """Files cannot be locked here."""


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder without waiting; return False if another process holds it.

    Raises:
        NoLocksError: the system or the file system has no locks.
    """
    if fcntl is None:
        raise NoLocksError("no file locks on this system")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise NoLocksError(*error.args) from error
    return True
