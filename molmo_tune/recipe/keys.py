"""All keys of a recipe, derived from the sections.

    all_keys()["optim.lr"].description  ->  "Peak learning rate."

Entries of a list have the index 0, as in ``data.train.0.path``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from molmo_tune.recipe.issues import KeyPath, dotted
from molmo_tune.recipe.sections import Recipe


@cache
def all_keys() -> dict[str, FieldInfo]:
    """Return dotted name -> field for sections and settings, in the order of a recipe."""
    return dict(_walk(Recipe, ()))


def field_at(path: KeyPath) -> FieldInfo | None:
    """Return the field at ``path`` (with any list index), or None."""
    return all_keys().get(dotted(_any_index(path)))


def sibling_keys(path: KeyPath) -> tuple[str, ...]:
    """Return the names that are allowed in the place of the last part of ``path``."""
    section = dotted(_any_index(path[:-1]))
    prefix = section + "." if section else ""
    names = (key[len(prefix) :] for key in all_keys() if key.startswith(prefix))
    return tuple(name for name in names if "." not in name)


def required_keys(field: FieldInfo) -> tuple[str, ...]:
    """Return the names without a default in the section of ``field``; none for a setting."""
    section = _section_in(field)
    if section is None:
        return ()
    return tuple(name for name, inner in section.model_fields.items() if inner.is_required())


def section_at(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field has, if set; None for settings and lists of sections."""
    return None if get_origin(field.annotation) is tuple else _section_in(field)


def _walk(section: type[BaseModel], prefix: KeyPath) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        path = (*prefix, name)
        yield dotted(path), field
        inner = _section_in(field)
        if inner is not None:
            yield from _walk(inner, path if section_at(field) else (*path, 0))


def _section_in(field: FieldInfo) -> type[BaseModel] | None:
    """The section in a field: required, optional, or as the entries of a list."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _any_index(path: KeyPath) -> KeyPath:
    return tuple(0 if isinstance(part, int) else part for part in path)
