"""Check a draft against the sections and the rules between keys, and word the errors.

One mistake gives one line: a required key that was misspelled is not also reported missing, a value
that could not be read is not also reported empty, and a rule between two keys stays silent if one
of them is wrong already. Otherwise rules apply even if other keys are wrong, so no issue shows up
only after the first ones are fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from molmo_tune.recipe.conflicts import conflicts
from molmo_tune.recipe.draft import Draft
from molmo_tune.recipe.issues import Issue, KeyPath, covers, path_of
from molmo_tune.recipe.keys import field_at, section_at, sibling_keys
from molmo_tune.recipe.messages import explain, explain_missing
from molmo_tune.recipe.sections import Recipe
from molmo_tune.recipe.suggestions import KeyGuess, guess_key

ErrorsByKey = dict[KeyPath, list[ErrorDetails]]
Guesses = dict[KeyPath, KeyGuess]


def check(draft: Draft) -> tuple[Recipe | None, list[Issue]]:
    """Return the recipe, or None and all issues in addition to those of the draft itself."""
    errors: ErrorsByKey = {}
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(draft.tree)
    except ValidationError as error:
        errors = _by_key(error.errors(include_url=False))
    guesses = {key: guess_key(key) for key, found in errors.items() if _is_unknown(found)}
    meant = {path_of(name) for guess in guesses.values() for name in guess.keys}
    distrusted = draft.unreadable | set(errors) | meant
    trusted = recipe or _trusted_part(draft.tree, distrusted)
    issues = [
        *_value_issues(draft, errors, guesses),
        *_conflict_issues(draft, trusted, distrusted),
    ]
    return (None if issues else recipe), issues


def _by_key(errors: Iterable[ErrorDetails]) -> ErrorsByKey:
    """Errors by key, without those that follow from another."""
    grouped: ErrorsByKey = {}
    for error in errors:
        if not _follows_from_entries(error):
            grouped.setdefault(_key_of(error), []).append(error)
    return grouped


def _follows_from_entries(error: ErrorDetails) -> bool:
    """Whether a list counts as too short only because its entries are wrong."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _key_of(error: ErrorDetails) -> KeyPath:
    """The location without pydantic's names for the branches of a union."""
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        return location
    end = len(location)
    while end and isinstance(location[end - 1], str) and field_at(location[:end]) is None:
        end -= 1
    return location[:end]


def _is_unknown(errors: list[ErrorDetails]) -> bool:
    return errors[0]["type"] == "extra_forbidden"


def _value_issues(draft: Draft, errors: ErrorsByKey, guesses: Guesses) -> Iterator[Issue]:
    for key, found in errors.items():
        if any(covers(unreadable, key) for unreadable in draft.unreadable):
            continue
        if key in guesses:
            hint = guesses[key].text or f"expected {', '.join(sibling_keys(key))}"
            yield draft.issue(key, "no such key", hint)
        elif found[0]["type"] != "missing":
            yield draft.issue(key, *explain(found))
        elif not _is_misspelled(key, guesses):
            yield draft.issue(key, explain_missing(key))


def _is_misspelled(missing: KeyPath, guesses: Guesses) -> bool:
    """Whether a missing key, or a key in a missing section, is present under a wrong name."""
    sure = [path_of(guess.keys[0]) for guess in guesses.values() if len(guess.keys) == 1]
    return any(covers(missing, key) for key in sure)


def _conflict_issues(draft: Draft, recipe: Recipe, distrusted: set[KeyPath]) -> Iterator[Issue]:
    """Conflicts between the settings that can be trusted."""
    for found in conflicts(recipe):
        if not any(_overlap(key, bad) for key in found.keys for bad in distrusted):
            written = (key for key in found.keys if key in draft.origins)
            yield draft.issue_at(next(written, found.key), found.key, found.reason)


def _overlap(key: KeyPath, other: KeyPath) -> bool:
    return covers(key, other) or covers(other, key)


def _trusted_part(tree: dict[str, Any], distrusted: set[KeyPath]) -> Recipe:
    """The settings that can be trusted, and defaults for the others."""
    return _constructed(Recipe, tree, (), distrusted)


_AnySection = TypeVar("_AnySection", bound=BaseModel)


def _constructed(
    section: type[_AnySection], given: object, path: KeyPath, distrusted: set[KeyPath]
) -> _AnySection:
    settings: dict[str, Any] = given if isinstance(given, dict) else {}
    trusted: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind, inner = section_at(field), (*path, name)
        is_present = kind is field.annotation or isinstance(settings.get(name), dict)
        if kind is not None and is_present:
            trusted[name] = _constructed(kind, settings.get(name), inner, distrusted)
        elif name in settings and not any(_overlap(inner, bad) for bad in distrusted):
            trusted[name] = settings[name]
    return section.model_construct(**trusted)
