"""Phrasings of a template: their syntax, rendering, and the choice of one of several.

Phrasings are Jinja, limited to variables, tests, conditions and a few filters. Loops, calls,
attributes and arithmetic are errors, so that a template from somebody else can neither inspect the
program nor keep it busy. A misspelled variable is an error too.

Every random choice depends on a key made of the recipe's seed, the sample and the label, so it is
the same in every epoch, worker process and machine.
"""

from __future__ import annotations

import random
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import SandboxedEnvironment

from molmo_tune.errors import UserError

MAX_CHARACTERS = 10_000

_ALLOWED = (
    *(nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter, nodes.Concat),
    *(nodes.If, nodes.CondExpr, nodes.Test, nodes.Compare, nodes.Operand),
    *(nodes.And, nodes.Or, nodes.Not),
)


def _replace(text: str, old: str, new: str) -> str:
    text = str(text)
    if len(text) + text.count(old) * len(new) > MAX_CHARACTERS:
        raise ValueError(f"more than {MAX_CHARACTERS} characters")
    return text.replace(old, new)


_FILTERS: dict[str, Callable[..., str]] = {
    "capitalize": lambda text: str(text).capitalize(),
    "lower": lambda text: str(text).lower(),
    "replace": _replace,
    "title": lambda text: str(text).title(),
    "trim": lambda text: str(text).strip(),
    "upper": lambda text: str(text).upper(),
}
_SYNTAX = f"variables, conditions and the filters {', '.join(_FILTERS)}"
_JINJA = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_JINJA.filters.clear()
_JINJA.filters.update(_FILTERS)
_JINJA.globals.clear()


def quoted(wording: str) -> str:
    """Return a phrasing as messages quote it, shortened in the middle when long."""
    quote = reprlib.Repr()
    quote.maxstring = 80
    return quote.repr(wording)


@lru_cache(maxsize=1024)
def variables_of(wording: str) -> frozenset[str]:
    """Return the names of the variables in a phrasing.

    Raises:
        UserError: a syntax error, or syntax that phrasings do not allow.
    """
    try:
        tree = _JINJA.parse(wording)
    except (TemplateError, RecursionError) as error:
        raise UserError(
            quoted(wording), f"is not valid Jinja ({_first_line(error)})", _SYNTAX
        ) from error
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _ALLOWED) or (
            isinstance(node, nodes.Filter) and node.name not in _FILTERS
        ):
            name = f"{type(node).__name__.lower()} {getattr(node, 'name', '')}".strip()
            raise UserError(quoted(wording), f"{name} is not allowed in a template", _SYNTAX)
    return frozenset(node.name for node in tree.find_all(nodes.Name))


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def render(wording: str, variables: Mapping[str, Any], *, where: str) -> str:
    """Return a phrasing with its variables filled in.

    Raises:
        UserError: as `variables_of`, or an unknown variable or filter.
    """
    variables_of(wording)
    try:
        return str(_compiled(wording).render(**variables))
    except (TemplateError, TypeError, ValueError, SyntaxError, RecursionError) as error:
        known = ", ".join(sorted(variables)) or "no variables"
        raise UserError(
            where,
            f"{quoted(wording)} does not render ({_first_line(error)})",
            f"Jinja with {known}",
        ) from error


@lru_cache(maxsize=1024)
def _compiled(wording: str) -> Any:
    return _JINJA.from_string(wording)


def draw(wordings: Sequence[str], key: str) -> str:
    """Return one of several phrasings, always the same one for a key."""
    return random.Random(key).choice(wordings)


def mentioning(
    wordings: Sequence[str], variable: str, key: str, *, needed: bool
) -> tuple[str, ...]:
    """Return the phrasings that contain a variable, or those that do not.

    If the variable is not `needed`, each group gets half of the keys, whatever its size, as in the
    training data. The result is empty if the variable is needed and no phrasing contains it.
    """
    stated = tuple(w for w in wordings if variable in variables_of(w))
    silent = tuple(w for w in wordings if variable not in variables_of(w))
    if needed or not silent:
        return stated
    return silent if not stated or random.Random(f"{key}:{variable}").random() < 0.5 else stated
