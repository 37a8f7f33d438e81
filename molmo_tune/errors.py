"""Error type for problems the user can fix.

Every message has four parts, *where: found; expected; fix*, so that nobody has to read our code to
repair a recipe or a label file. The command line prints the message alone and exits with 1; a
traceback always means a bug in molmo-tune.
"""

from __future__ import annotations


class UserError(Exception):
    """A problem in the user's recipe, labels, media or folders.

    Args:
        where: file, ``file:line``, recipe key or object with the problem.
        found: the problem, as a fact.
        expected: the requirement, as a noun phrase; empty if `found` implies it.
        fix: what the user can do, in the imperative; empty if `expected` implies it.
    """

    def __init__(self, where: object, found: str, expected: str = "", fix: str = "") -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.fix = fix
        parts = [found]
        if expected:
            parts.append(f"expected {expected}")
        if fix:
            parts.append(fix)
        super().__init__(f"{self.where}: " + "; ".join(parts))

    def __reduce__(self) -> tuple[type[UserError], tuple[object, ...]]:
        """Rebuild from the four parts, so that the error survives pickling between processes."""
        return type(self), (self.where, self.found, self.expected, self.fix)


def cannot_write(path: object, error: OSError, fix: str = "") -> UserError:
    """Return the error for a file or folder that cannot be written."""
    return UserError(path, f"cannot be written ({error.strerror})", fix=fix)


def already_exists(path: object, option: str) -> UserError:
    """Return the error for an output that would overwrite something; `option` picks another."""
    return UserError(path, "already exists", fix=f"choose another folder with {option}")


def not_empty(path: object, option: str) -> UserError:
    """Return the error for an output folder with files in it; `option` picks another."""
    return UserError(path, "is not empty", "a new folder", f"choose another with {option}")
