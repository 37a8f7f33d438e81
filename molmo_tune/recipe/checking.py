"""Checks a draft against the sections and the rules between them, and words what they object to.

One mistake gives one line: a required key that was misspelled is not reported missing too, a value
that could not be read is not reported again for being empty, and a rule between two keys is silent
when one of them is at fault already. Otherwise a rule is applied even if other keys are wrong, so
that no fault shows up only after the first ones are repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from molmo_tune.recipe.conflicts import conflicts
from molmo_tune.recipe.draft import Draft
from molmo_tune.recipe.issues import Issue, KeyPath, covers, path_of
from molmo_tune.recipe.keys import field_at, keys_beside, section_at
from molmo_tune.recipe.messages import explain, explain_missing
from molmo_tune.recipe.sections import Recipe
from molmo_tune.recipe.suggestions import KeyGuess, guess_key

ErrorsByKey = dict[KeyPath, list[ErrorDetails]]
Guesses = dict[KeyPath, KeyGuess]


def check(draft: Draft) -> tuple[Recipe | None, list[Issue]]:
    """The recipe, or None and all of its faults beyond those that the draft has already."""
    try:
        return Recipe.model_validate(draft.tree), []
    except ValidationError as error:
        errors = _by_key(error.errors(include_url=False))
    guesses = {key: guess_key(key) for key, found in errors.items() if _is_unknown(found)}
    meant = {path_of(name) for guess in guesses.values() for name in guess.keys}
    distrusted = draft.unreadable | set(errors) | meant
    return None, [
        *_value_faults(draft, errors, guesses),
        *_contradictions(draft, distrusted),
    ]


def _by_key(errors: Iterable[ErrorDetails]) -> ErrorsByKey:
    """Errors by the key they concern, without those that follow from another."""
    grouped: ErrorsByKey = {}
    for error in errors:
        if error["type"] != "contradiction" and not _follows_from_entries(error):
            grouped.setdefault(_key_of(error), []).append(error)
    return grouped


def _follows_from_entries(error: ErrorDetails) -> bool:
    """Whether a list counts as too short only because its entries are wrong."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _key_of(error: ErrorDetails) -> KeyPath:
    """The location without pydantic's names for the branches of a choice."""
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        return location
    end = len(location)
    while end and isinstance(location[end - 1], str) and field_at(location[:end]) is None:
        end -= 1
    return location[:end]


def _is_unknown(errors: list[ErrorDetails]) -> bool:
    return errors[0]["type"] == "extra_forbidden"


def _value_faults(draft: Draft, errors: ErrorsByKey, guesses: Guesses) -> Iterator[Issue]:
    for key, found in errors.items():
        if any(covers(unreadable, key) for unreadable in draft.unreadable):
            continue
        if key in guesses:
            hint = guesses[key].text or f"there are {', '.join(keys_beside(key))}"
            yield draft.fault(key, "there is no such key", hint)
        elif found[0]["type"] != "missing":
            yield draft.fault(key, *explain(found))
        elif not _is_misspelled(key, guesses):
            yield draft.fault(key, explain_missing(key))


def _is_misspelled(missing: KeyPath, guesses: Guesses) -> bool:
    """Whether a missing key, or something in a missing section, is there under a wrong name."""
    sure = [path_of(guess.keys[0]) for guess in guesses.values() if len(guess.keys) == 1]
    return any(covers(missing, key) for key in sure)


def _contradictions(draft: Draft, distrusted: set[KeyPath]) -> Iterator[Issue]:
    """What the sound part of a faulty recipe says against itself."""
    for found in conflicts(_sound_part(draft.tree, distrusted)):
        if not any(_touch(key, bad) for key in found.keys for bad in distrusted):
            written = (key for key in found.keys if key in draft.origins)
            yield draft.fault_at(next(written, found.key), found.key, found.reason)


def _touch(key: KeyPath, other: KeyPath) -> bool:
    return covers(key, other) or covers(other, key)


def _sound_part(tree: dict[str, Any], distrusted: set[KeyPath]) -> Recipe:
    """The settings that can be trusted, and defaults for the others."""
    return _constructed(Recipe, tree, (), distrusted)


_AnySection = TypeVar("_AnySection", bound=BaseModel)


def _constructed(
    section: type[_AnySection], given: object, path: KeyPath, distrusted: set[KeyPath]
) -> _AnySection:
    settings: dict[str, Any] = given if isinstance(given, dict) else {}
    sound: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind, inner = section_at(field), (*path, name)
        is_there = kind is field.annotation or isinstance(settings.get(name), dict)
        if kind is not None and is_there:
            sound[name] = _constructed(kind, settings.get(name), inner, distrusted)
        elif name in settings and not any(_touch(inner, bad) for bad in distrusted):
            sound[name] = settings[name]
    return section.model_construct(**sound)
