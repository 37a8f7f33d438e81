"""The findings of a check, and their order.

An *error* will stop training or invalidate its results, a *warning* deserves a look, a *note* is a
figure. Findings of the same severity are sorted by the number of labels or media they concern.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from molmo_tune.units import count

Severity = Literal["error", "warning", "note"]
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        severity: ``error``, ``warning`` or ``note``.
        where: key in the recipe.
        text: what was found.
        num_cases: number of labels or media concerned.
    """

    severity: Severity
    where: str
    text: str
    num_cases: int = 0

    def __str__(self) -> str:
        return f"{self.severity:<8}{self.where}: {self.text}"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort errors before warnings before notes, each with the most cases first."""
    return sorted(findings, key=lambda one: (_ORDER[one.severity], -one.num_cases))


def examples(cases: Sequence[object]) -> str:
    """Return the first few cases, and the number of the others."""
    more = f" and {len(cases) - EXAMPLES} more" if len(cases) > EXAMPLES else ""
    return ", ".join(map(str, cases[:EXAMPLES])) + more


def counted(findings: Iterable[Finding]) -> str:
    """Return a summary such as ``1 error, 2 warnings``, without the notes."""
    severities = [one.severity for one in findings]
    numbers = {name: severities.count(name) for name in ("error", "warning")}
    return ", ".join(count(n, name) for name, n in numbers.items() if n) or "no problems"
