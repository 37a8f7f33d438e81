"""The one kind of error that is the user's to fix.

Every message has four parts, *where: what was found; what was expected; what to do*, so that a
reader never has to open our code to repair a recipe or a label file. The command line prints the
message alone and exits with 1; a traceback always means a defect of ours.
"""

from __future__ import annotations


class UserError(Exception):
    """Something in the user's recipe, labels, media or folders must be changed.

    Args:
        where: the file, ``file:line``, recipe key or object the problem sits in.
        found: what is there.
        expected: what should have been there; empty when ``found`` says it all.
        fix: what the user can do about it; empty when it follows from ``expected``.
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
        """Rebuild from the four parts, so that the error crosses process borders whole."""
        return type(self), (self.where, self.found, self.expected, self.fix)
