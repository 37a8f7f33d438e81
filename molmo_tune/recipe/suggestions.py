"""Suggestions for keys and values that do not exist.

For a key, the first that fits: a key of version 0.1 that was renamed; the same name in another
section; a name from another trainer; a misspelled key of this section; a misspelled key of any
section.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from molmo_tune.recipe.foreign_names import FOREIGN_KEYS, FOREIGN_VALUES, RENAMED_KEYS, remark_on
from molmo_tune.recipe.issues import KeyPath, dotted
from molmo_tune.recipe.keys import all_keys, sibling_keys

_MAX_SUGGESTIONS = 3


@dataclass(frozen=True, slots=True)
class KeyGuess:
    """Keys that were probably meant, best first, and the suggestion in words."""

    keys: tuple[str, ...] = ()
    text: str = ""


def guess_key(path: KeyPath) -> KeyGuess:
    """Return the keys that were probably meant by the unknown key at ``path``."""
    word = str(path[-1]).strip().lower().replace("-", "_")
    return (
        _renamed(path)
        or _question(_same_name(word))
        or _foreign(word)
        or _question(_misspelled_sibling(word, path))
        or _question(_misspelled_anywhere(word))
        or KeyGuess()
    )


def guess_word(word: object, choices: Sequence[str]) -> str:
    """Return ``did you mean 'lora'?``, or nothing."""
    given = str(word).strip().lower()
    if given in FOREIGN_VALUES and FOREIGN_VALUES[given] in choices:
        return f"did you mean {FOREIGN_VALUES[given]!r}?"
    return did_you_mean(repr(choice) for choice in closest(given, choices))


def closest(word: str, choices: Iterable[str]) -> tuple[str, ...]:
    """Return the choice most similar to ``word``, ignoring case; empty if none is close."""
    spelled = {choice.lower(): choice for choice in choices}
    return tuple(spelled[match] for match in get_close_matches(word.lower(), spelled, n=1))


def did_you_mean(names: Iterable[str]) -> str:
    """Return ``did you mean a or b?``; empty without names."""
    listed = " or ".join(names)
    return f"did you mean {listed}?" if listed else ""


def _question(keys: Iterable[str]) -> KeyGuess | None:
    found = tuple(keys)[:_MAX_SUGGESTIONS]
    return KeyGuess(found, did_you_mean(found)) if found else None


def _renamed(path: KeyPath) -> KeyGuess | None:
    name = RENAMED_KEYS.get(".".join(part for part in path if isinstance(part, str)))
    if name is None:
        return None
    key = dotted((*path[:-1], name))
    return KeyGuess((key,), f"renamed to {key}")


def _same_name(word: str) -> list[str]:
    """Keys with the same name in other sections."""
    return [key for key in all_keys() if _leaf(key) == word]


def _foreign(word: str) -> KeyGuess | None:
    ours, remark = FOREIGN_KEYS.get(word), remark_on(word)
    if ours is None:
        return None
    return KeyGuess((ours,), f"use {ours}" + (f" ({remark})" if remark else ""))


def _misspelled_sibling(word: str, path: KeyPath) -> list[str]:
    return [dotted((*path[:-1], name)) for name in closest(word, sibling_keys(path))]


def _misspelled_anywhere(word: str) -> list[str]:
    leaves = closest(word, {_leaf(key): None for key in all_keys()})
    return [key for key in all_keys() if _leaf(key) in leaves]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]
