"""A recipe before validation: raw values, and the origin of each.

``--set a.b=c`` overrides the file here. The value is YAML, read by the same rules as the file; an
index counts from 0 and must exist: ``data.train.0.path=clips.xml``.

Limitations: whether a key exists and its value fits is up to the sections, for file and overrides
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from molmo_tune.recipe.issues import Issue, KeyPath, covers, dotted, path_of
from molmo_tune.recipe.yaml_lines import Reading, read_yaml

Origin = int | str
"""A line of the recipe file, or an override as typed (``--set a.b=c``)."""


@dataclass(slots=True)
class Draft:
    """Values of file and overrides so far, with the issues so far."""

    source: str
    tree: dict[str, object] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    unreadable: set[KeyPath] = field(default_factory=set)
    issues: list[Issue] = field(default_factory=list)

    def issue(self, path: KeyPath, reason: str, suggestion: str = "") -> Issue:
        """Return an issue with ``path``, located at the nearest enclosing key that is written."""
        return self.issue_at(path, path, reason, suggestion)

    def issue_at(self, spot: KeyPath, path: KeyPath, reason: str, suggestion: str = "") -> Issue:
        """Return an issue with ``path``, located at another key, ``spot``."""
        written = (spot[:end] for end in range(len(spot), 0, -1) if spot[:end] in self.origins)
        origin = self.origins.get(next(written, ()), 1)
        if isinstance(origin, str):
            return Issue(origin, None, dotted(path), reason, suggestion)
        return Issue(self.source, origin, dotted(path), reason, suggestion)

    def forget(self, path: KeyPath) -> None:
        """Forget origins and issues of ``path`` and everything below it, which is replaced."""
        for old in [old for old in self.origins if covers(path, old)]:
            del self.origins[old]
        self.unreadable = {old for old in self.unreadable if not covers(path, old)}


def draft_of(source: str, reading: Reading) -> Draft:
    """Return the draft of a recipe file; the value of `reading` must be a mapping."""
    tree = reading.value if isinstance(reading.value, dict) else {}
    issues = [Issue(source, f.line, dotted(f.path), f.reason) for f in reading.faults]
    return Draft(source, tree, dict(reading.lines), set(reading.unreadable), issues)


def override(draft: Draft, overrides: Sequence[str]) -> None:
    """Apply ``a.b=c`` strings to ``draft`` in order; the last one wins."""
    for text in overrides:
        _override(draft, text)


def _override(draft: Draft, text: str) -> None:
    typed = f"--set {text}"
    key, equals, value = text.partition("=")
    path = path_of(key.strip())
    if not equals or "" in path:
        reason = "expected key=value, such as --set optim.lr=2e-4"
        draft.issues.append(Issue(typed, None, "", reason))
        return
    reading = read_yaml(value)
    obstacle = _place(draft.tree, path, reading.value)
    if obstacle:
        draft.issues.append(Issue(typed, None, dotted(path), obstacle))
        return
    draft.issues += [Issue(typed, None, dotted((*path, *f.path)), f.reason) for f in reading.faults]
    draft.forget(path)
    draft.origins[path] = typed
    draft.unreadable |= {(*path, *below) for below in reading.unreadable}


def _place(tree: dict[str, object], path: KeyPath, value: object) -> str:
    """Put ``value`` at ``path``, creating sections on the way; return why that is impossible."""
    spot: Any = tree
    for depth, part in enumerate(path):
        obstacle = _obstacle(spot, part, dotted(path[:depth]) or "the recipe")
        if obstacle:
            return obstacle
        if depth == len(path) - 1:
            spot[part] = value
        elif isinstance(spot, dict) and spot.get(part) is None:
            if isinstance(path[depth + 1], int):
                return _no_entry(dotted(path[: depth + 1]), 0)
            spot[part] = {}
        spot = spot[part]
    return ""


def _obstacle(spot: object, part: str | int, name: str) -> str:
    """Return why ``spot``, which is at ``name``, cannot have anything at ``part``."""
    if isinstance(spot, list):
        inside = isinstance(part, int) and part < len(spot)
        return "" if inside else _no_entry(name, len(spot))
    if isinstance(spot, dict):
        return _no_entry(name, 0) if isinstance(part, int) else ""
    return f"{name} has a single value, so nothing can be set below it"


def _no_entry(name: str, count: int) -> str:
    if count == 0:
        return f"{name} has no entries to change; set the whole list"
    last = f"0 to {count - 1}" if count > 1 else "0"
    return f"{name} has {count} {'entry' if count == 1 else 'entries'}, numbered {last}"
