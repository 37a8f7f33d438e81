"""Problems in a recipe: one `Issue` per line, all of them in one `RecipeError`.

Reporting only the first issue would take a run of the command per mistake, so nothing in this
subpackage raises at the first one. A line reads ``file:line: key: reason; did you mean …``, which
editors and terminals turn into a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from molmo_tune.errors import UserError

KeyPath = tuple[str | int, ...]
"""Location of a value: ``("data", "train", 0, "path")``."""


_INDEX = re.compile("[0-9]{1,9}")


def dotted(path: KeyPath) -> str:
    """Return a key path as ``--set`` takes it: ``data.train.0.path``."""
    return ".".join(str(part) for part in path)


def path_of(name: str) -> KeyPath:
    """Return the key path of a dotted name; numbers are indices."""
    return tuple(int(part) if _INDEX.fullmatch(part) else part for part in name.split("."))


def covers(path: KeyPath, other: KeyPath) -> bool:
    """Return whether ``other`` is ``path`` or below it."""
    return other[: len(path)] == path


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to change in a recipe.

    Args:
        source: the recipe file, or the override as typed (``--set optim.lr=fast``).
        line: 1-based line in that file; None for an override and for the file as a whole.
        key: the dotted key; empty if the issue does not concern one key.
        reason: the problem, in plain English.
        suggestion: what was probably meant; empty without a good guess.
    """

    source: str
    line: int | None
    key: str
    reason: str
    suggestion: str = ""

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        what = "; ".join(part for part in (self.reason, self.suggestion) if part)
        return _one_line(": ".join(part for part in (where, self.key, what) if part))


class RecipeError(UserError):
    """All issues of one recipe; ``str()`` has one line per issue.

    Args:
        source: the recipe as the user named it.
        issues: at least one, in reading order.
    """

    def __init__(self, source: str, issues: Iterable[Issue]) -> None:
        self.source = source
        self.issues = tuple(issues)
        found = "1 issue" if len(self.issues) == 1 else f"{len(self.issues)} issues"
        super().__init__(source, found)

    def __str__(self) -> str:
        return "\n".join(map(str, self.issues))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, tuple[Issue, ...]]]:
        return type(self), (self.source, self.issues)


def _one_line(text: str) -> str:
    """Escape line breaks and control characters, which keys and file names can contain."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
