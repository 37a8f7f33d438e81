"""JSON that is taken at its word: every question about a key ends in a value or in an error.

No unknown keys, no doubled keys, no ``NaN``, no text where a number belongs, no number where true
or false belongs; each error names the line. Which keys an object may have is said by its caller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from molmo_tune.errors import UserError


def parse_strictly(text: str, where: str) -> Any:
    """One JSON value.

    Raises:
        UserError: the text is not JSON, or has a doubled key or a number that is none.
    """

    def refuse(word: str) -> NoReturn:
        raise UserError(where, f"{word} is not a number", "finite numbers")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise UserError(where, "a key appears twice in one object", "every key once")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        found = f"not valid JSON ({error.msg} at column {error.colno})"
        raise UserError(where, found, "one JSON object") from error
    except (ValueError, RecursionError) as error:
        raise UserError(where, f"not valid JSON ({error})", "one JSON object") from error


@dataclass(frozen=True, slots=True)
class Part:
    """One JSON object: its values, what it is called, and the ``file:line`` it stands in."""

    values: Mapping[str, Any]
    name: str
    where: str

    @staticmethod
    def of(value: object, name: str, keys: Sequence[str], where: str) -> Part:
        """The object, which has no keys but these."""
        if not isinstance(value, dict):
            raise UserError(where, f"{name} is {shown(value)}", "an object")
        for key in value:
            if key not in keys:
                close = get_close_matches(str(key), keys, n=1)
                fix = f"did you mean {close[0]!r}?" if close else ""
                raise UserError(
                    where, f"{name} has the unknown key {key!r}", f"one of {', '.join(keys)}", fix
                )
        return Part(value, name, where)

    def wrong(self, key: str, expected: str) -> NoReturn:
        """Raise: the key is missing or has a value of another sort."""
        has = key in self.values
        found = (
            f"{self.name}.{key} is {shown(self.values[key])}"
            if has
            else f"{self.name} has no {key}"
        )
        raise UserError(self.where, found, expected)

    def error(self, found: str, expected: str) -> UserError:
        """An error that names the place of this object."""
        return UserError(self.where, found, expected)

    def text(self, key: str, default: str | None = None) -> str:
        """Text."""
        value = self.values.get(key, default)
        return value if isinstance(value, str) else self.wrong(key, "text")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty when missing."""
        value = self.items(key)
        return tuple(value) if all(isinstance(v, str) for v in value) else self.wrong(key, "texts")

    def items(self, key: str, *, required: bool = False) -> list[Any]:
        """A list, empty when missing and not required."""
        value = self.values.get(key, None if required else [])
        return value if isinstance(value, list) else self.wrong(key, "a list")

    def flag(self, key: str) -> bool:
        """True or false; false when missing."""
        value = self.values.get(key, False)
        return value if isinstance(value, bool) else self.wrong(key, "true or false")

    def whole(self, key: str, default: int, least: int) -> int:
        """A whole number from ``least``."""
        value = self.values.get(key, default)
        is_whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return int(value) if is_whole else self.wrong(key, f"a whole number from {least}")

    def seconds(self, key: str) -> float:
        """A finite number from 0."""
        value = self.values.get(key)
        number = _finite(value)
        return number if number is not None and number >= 0 else self.wrong(key, "seconds from 0")

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """So many finite numbers."""
        found = tuple(map(_finite, self.items(key)))
        known = tuple(number for number in found if number is not None)
        return known if len(known) == len(found) == count else self.wrong(key, f"{count} numbers")


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def shown(value: object) -> str:
    """A value as JSON, cut to what fits a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "…"
