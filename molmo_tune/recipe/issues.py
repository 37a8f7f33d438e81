"""What is wrong with a recipe: one `Issue` a line, all of them in one `RecipeError`.

A user who fixes one fault only to meet the next has to run the command once per mistake, so nothing
in this room raises at the first one. A line reads ``file:line: key: reason; did you mean …``, the
form that editors and terminals turn into a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from molmo_tune.errors import UserError

KeyPath = tuple[str | int, ...]
"""Where a value sits: ``("data", "train", 0, "path")``."""


_INDEX = re.compile("[0-9]{1,9}")


def dotted(path: KeyPath) -> str:
    """Spell a key path the way ``--set`` takes it: ``data.train.0.path``."""
    return ".".join(str(part) for part in path)


def path_of(name: str) -> KeyPath:
    """The key path that ``name`` spells; parts of digits are indices."""
    return tuple(int(part) if _INDEX.fullmatch(part) else part for part in name.split("."))


def covers(path: KeyPath, other: KeyPath) -> bool:
    """Whether ``other`` is ``path`` or lies below it."""
    return other[: len(path)] == path


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to change in a recipe.

    Args:
        source: the recipe file, or the override as typed (``--set optim.lr=fast``).
        line: 1-based line in that file; None for an override and for the file as a whole.
        key: the dotted key, empty when the fault is not about one key.
        reason: what is wrong, in plain English.
        suggestion: what was probably meant; empty when there is no good guess.
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
    """Everything that is wrong with one recipe; ``str()`` has one line per fault.

    Args:
        source: the recipe as the user named it.
        faults: at least one, in the order in which they are to be read.
    """

    def __init__(self, source: str, faults: Iterable[Issue]) -> None:
        self.source = source
        self.faults = tuple(faults)
        found = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(source, found)

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, tuple[Issue, ...]]]:
        return type(self), (self.source, self.faults)


def _one_line(text: str) -> str:
    """Escape line breaks and control characters that a key or file name may carry."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
