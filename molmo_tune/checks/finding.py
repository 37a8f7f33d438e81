"""One line of the check, and which lines come first.

An *error* will stop or spoil training, a *warning* should be looked at, a *note* is a figure. Among
lines of one severity those that concern more of the data come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: where in the recipe, what was found, and how many labels or media it concerns."""

    severity: Severity
    where: str
    text: str
    num_cases: int = 0

    def __str__(self) -> str:
        return f"{self.severity:<8}{self.where}: {self.text}"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings before notes, each with the most cases first."""
    return sorted(findings, key=lambda one: (_ORDER[one.severity], -one.num_cases))


def examples(cases: Sequence[object]) -> str:
    """The first few of them, and how many are not named."""
    more = f" and {len(cases) - EXAMPLES} more" if len(cases) > EXAMPLES else ""
    return ", ".join(map(str, cases[:EXAMPLES])) + more


def counted(findings: Iterable[Finding]) -> str:
    """``1 error, 2 warnings``; notes are not counted."""
    severities = [one.severity for one in findings]
    numbers = {name: severities.count(name) for name in ("error", "warning")}
    told = (f"{n} {name}{'s' * (n != 1)}" for name, n in numbers.items() if n)
    return ", ".join(told) or "nothing to mend"
