"""The words of a template: what may stand in them, filling them in, and drawing one of several.

Wordings are Jinja, of which only what words need is allowed: variables, tests, conditions and a few
filters. Loops, calls, attributes and arithmetic are errors, so a template that somebody else wrote
can neither look into the program nor keep it busy. A misspelled variable is an error too.

Everything drawn at random is drawn from a key of the recipe's seed, the sample and the label, so
that every epoch, worker and machine draws the same.
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
_MAY = f"variables, conditions and the filters {', '.join(_FILTERS)}"
_JINJA = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_JINJA.filters.clear()
_JINJA.filters.update(_FILTERS)
_JINJA.globals.clear()


def quoted(wording: str) -> str:
    """A wording as messages quote it, cut in the middle when it is long."""
    quote = reprlib.Repr()
    quote.maxstring = 80
    return quote.repr(wording)


@lru_cache(maxsize=1024)
def variables_of(wording: str) -> frozenset[str]:
    """Names of the variables that a wording mentions.

    Raises:
        UserError: a syntax error, or something that a wording may not do.
    """
    try:
        tree = _JINJA.parse(wording)
    except (TemplateError, RecursionError) as error:
        raise UserError(quoted(wording), f"is not Jinja ({_first_line(error)})", _MAY) from error
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _ALLOWED) or (
            isinstance(node, nodes.Filter) and node.name not in _FILTERS
        ):
            name = f"{type(node).__name__.lower()} {getattr(node, 'name', '')}".strip()
            raise UserError(quoted(wording), f"{name} is not allowed in a wording", _MAY)
    return frozenset(node.name for node in tree.find_all(nodes.Name))


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def render(wording: str, variables: Mapping[str, Any], *, where: str) -> str:
    """Fill in a wording.

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
    """One of several wordings, the same for the same key."""
    return random.Random(key).choice(wordings)


def mentioning(
    wordings: Sequence[str], variable: str, key: str, *, needed: bool
) -> tuple[str, ...]:
    """The wordings that mention a variable, or those that do not.

    Where the variable need not be said, both families get half of the keys, as in the training
    data, whatever their sizes. Empty when it is needed and no wording mentions it.
    """
    saying = tuple(w for w in wordings if variable in variables_of(w))
    silent = tuple(w for w in wordings if variable not in variables_of(w))
    if needed or not silent:
        return saying
    return silent if not saying or random.Random(f"{key}:{variable}").random() < 0.5 else saying
