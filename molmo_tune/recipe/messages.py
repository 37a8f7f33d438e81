"""Validation errors in plain English: the requirement, and the value found.

    int_type, input "fast"                    ->  must be an integer, not 'fast'
    greater_than or literal_error, input -1   ->  must be greater than 0 or 'auto', not -1

Several errors at one key come from a union (a number or the word `auto`); their requirements are
joined by "or", because meeting one is enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from molmo_tune.recipe.issues import KeyPath
from molmo_tune.recipe.keys import field_at, required_keys
from molmo_tune.recipe.suggestions import guess_word

OWN_ERRORS = ("repeated",)
"""Errors that `sections` raises itself, with a complete message."""

_LONGEST_TEXT = 60

_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bool_type": lambda _: "true or false",
    "finite_number": lambda _: "a finite number",
    "float_type": lambda _: "a number",
    "greater_than": lambda limits: f"greater than {_number(limits['gt'])}",
    "greater_than_equal": lambda limits: f"at least {_number(limits['ge'])}",
    "int_type": lambda _: "an integer",
    "less_than": lambda limits: f"less than {_number(limits['lt'])}",
    "less_than_equal": lambda limits: f"at most {_number(limits['le'])}",
    "literal_error": lambda limits: limits["expected"],
    "model_type": lambda _: "a section",
    "path_type": lambda _: "a path",
    "string_too_short": lambda _: "a non-empty string",
    "string_type": lambda _: "a string",
    "too_long": lambda limits: f"a list with at most {limits['max_length']} entries",
    "too_short": lambda limits: f"a list with at least {limits['min_length']} entry",
    "tuple_type": lambda _: "a list",
}


def explain(errors: Sequence[ErrorDetails]) -> tuple[str, str]:
    """Return reason and suggestion for all errors at one key."""
    error = errors[0]
    if error["type"] in OWN_ERRORS:
        return error["msg"], ""
    value = error["input"]
    expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
    return f"must be {expected}, not {describe(value)}", _suggest(value, expected)


def explain_missing(path: KeyPath) -> str:
    """Return the reason for a missing required key."""
    field = field_at(path)
    if field is None:
        return "is missing: the list is too short"
    needed = " and ".join(required_keys(field))
    meaning = " ".join((field.description or "").split()).rstrip(".")
    return f"is missing ({meaning})" + (f"; it needs {needed}" if needed else "")


def describe(value: object) -> str:
    """Return a value in words, short enough for one line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value}"
    if isinstance(value, str):
        short = value if len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + "…"
        return repr(short) if value else "an empty string"
    if isinstance(value, list | tuple):
        return f"a list with {len(value)} entries" if value else "an empty list"
    return "a section"


def _expected(error: ErrorDetails) -> str:
    known = _EXPECTED.get(error["type"])
    return known(error.get("ctx", {})) if known else error["msg"]


def _number(limit: float) -> str:
    return f"{int(limit) if limit == int(limit) else limit}"


def _suggest(value: object, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    if choices and isinstance(value, str | int | float):
        return guess_word(value, choices)
    if "an integer" in expected and isinstance(value, float) and value.is_integer():
        return f"write it as {value:.0f}"
    if "true or false" in expected and isinstance(value, str):
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
        return f"write {word}" if word else ""
    if expected in ("a string", "a path") and isinstance(value, bool | int | float):
        return "put it in quotes"
    if expected == "a list" and value is not None:
        return "put it in brackets"
    return ""
