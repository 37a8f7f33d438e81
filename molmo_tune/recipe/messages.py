"""Validation errors in plain English: what a value must be, and what it is.

    int_type, input "fast"                    ->  must be a whole number, not the text 'fast'
    greater_than or literal_error, input -1   ->  must be greater than 0 or 'auto', not …

Several errors at one key come from a choice of kinds (a number or the word `auto`); their
expectations are joined by "or", because meeting one is enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from molmo_tune.recipe.issues import KeyPath
from molmo_tune.recipe.keys import field_at, required_keys
from molmo_tune.recipe.suggestions import guess_word

OWN_ERRORS = ("named_twice", "contradiction")
"""Errors that `sections` raises itself, whose message is a whole reason already."""

_LONGEST_TEXT = 60

_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bool_type": lambda _: "true or false",
    "finite_number": lambda _: "a finite number",
    "float_type": lambda _: "a number",
    "greater_than": lambda limits: f"greater than {_number(limits['gt'])}",
    "greater_than_equal": lambda limits: f"at least {_number(limits['ge'])}",
    "int_type": lambda _: "a whole number",
    "less_than": lambda limits: f"less than {_number(limits['lt'])}",
    "less_than_equal": lambda limits: f"at most {_number(limits['le'])}",
    "literal_error": lambda limits: limits["expected"],
    "model_type": lambda _: "a section with keys of its own",
    "path_type": lambda _: "a path",
    "string_too_short": lambda _: "a text that is not empty",
    "string_type": lambda _: "a text",
    "too_long": lambda limits: f"a list of {limits['max_length']} entries",
    "too_short": lambda limits: f"a list of at least {limits['min_length']} entry",
    "tuple_type": lambda _: "a list",
}


def explain(errors: Sequence[ErrorDetails]) -> tuple[str, str]:
    """Reason and suggestion for all the errors at one key."""
    error = errors[0]
    if error["type"] in OWN_ERRORS:
        return error["msg"], ""
    value = error["input"]
    expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
    return f"must be {expected}, not {describe(value)}", _suggest(value, expected)


def explain_missing(path: KeyPath) -> str:
    """Reason for a key without which a recipe is not complete."""
    field = field_at(path)
    if field is None:
        return "is missing; the list is too short"
    needed = " and ".join(required_keys(field))
    meaning = " ".join((field.description or "").split()).rstrip(".")
    return f"is missing ({meaning})" + (f"; it needs {needed}" if needed else "")


def describe(value: object) -> str:
    """A value in words, short enough for one line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        short = value if len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + "…"
        return f"the text {short!r}" if value else "an empty text"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
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
    if "a whole number" in expected and isinstance(value, float) and value.is_integer():
        return f"write it as {value:.0f}"
    if "true or false" in expected and isinstance(value, str):
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
        return f"write {word}" if word else ""
    if expected in ("a text", "a path") and isinstance(value, bool | int | float):
        return "put it in quotes"
    if expected == "a list" and value is not None:
        return "put it in brackets"
    return ""
