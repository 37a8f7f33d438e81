"""Strict JSON: each lookup of a key returns a value of the right type or raises an error.

Unknown keys, duplicate keys, ``NaN``, text instead of a number, and a number instead of a boolean
are errors that name the line. The caller defines the keys of an object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from molmo_tune.errors import UserError


def parse_strict_json(text: str, where: str) -> Any:
    """Return one JSON value.

    Raises:
        UserError: the text is not JSON, or contains a duplicate key, ``NaN`` or infinity.
    """

    def refuse(word: str) -> NoReturn:
        raise UserError(where, f"{word} is not a number", "finite numbers")

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise UserError(where, "a key appears twice in one object", "unique keys")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=refuse_duplicates)
    except json.JSONDecodeError as error:
        found = f"not valid JSON ({error.msg} at column {error.colno})"
        raise UserError(where, found, "one JSON object") from error
    except (ValueError, RecursionError) as error:
        raise UserError(where, f"not valid JSON ({error})", "one JSON object") from error


@dataclass(frozen=True, slots=True)
class JsonObject:
    """One JSON object: its values, its name in messages, and its ``file:line``."""

    values: Mapping[str, Any]
    name: str
    where: str

    @staticmethod
    def of(value: object, name: str, keys: Sequence[str], where: str) -> JsonObject:
        """Return the object, which may contain only these keys."""
        if not isinstance(value, dict):
            raise UserError(where, f"{name} is {short_json(value)}", "an object")
        for key in value:
            if key not in keys:
                close = get_close_matches(str(key), keys, n=1)
                fix = f"did you mean {close[0]!r}?" if close else ""
                raise UserError(
                    where, f"{name} has the unknown key {key!r}", f"one of {', '.join(keys)}", fix
                )
        return JsonObject(value, name, where)

    def reject(self, key: str, expected: str) -> NoReturn:
        """Raise an error: the key is missing or has an invalid value."""
        found = f"{self.name} has no {key}"
        if key in self.values:
            found = f"{self.name}.{key} is {short_json(self.values[key])}"
        raise UserError(self.where, found, expected)

    def error(self, found: str, expected: str) -> UserError:
        """Return an error that names the place of this object."""
        return UserError(self.where, found, expected)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        value = self.values.get(key, default)
        return value if isinstance(value, str) else self.reject(key, "text")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, empty if missing."""
        value = self.items(key)
        return (
            tuple(value)
            if all(isinstance(v, str) for v in value)
            else self.reject(key, "a list of texts")
        )

    def items(self, key: str, *, required: bool = False) -> list[Any]:
        """Return a list, empty if missing and not required."""
        value = self.values.get(key, None if required else [])
        return value if isinstance(value, list) else self.reject(key, "a list")

    def flag(self, key: str) -> bool:
        """Return a boolean, false if missing."""
        value = self.values.get(key, False)
        return value if isinstance(value, bool) else self.reject(key, "true or false")

    def integer(self, key: str, default: int, least: int) -> int:
        """Return an integer of at least ``least``."""
        value = self.values.get(key, default)
        is_valid = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return int(value) if is_valid else self.reject(key, f"an integer of at least {least}")

    def seconds(self, key: str) -> float:
        """Return a finite number of at least 0."""
        value = self.values.get(key)
        number = _finite(value)
        return (
            number
            if number is not None and number >= 0
            else self.reject(key, "seconds, at least 0")
        )

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """Return `count` finite numbers."""
        found = tuple(map(_finite, self.items(key)))
        finite = tuple(number for number in found if number is not None)
        return (
            finite if len(finite) == len(found) == count else self.reject(key, f"{count} numbers")
        )


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def short_json(value: object) -> str:
    """Return a value as JSON, truncated to fit a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "…"
