"""Every key that a recipe may have, walked from the sections so that no list is kept by hand.

    all_keys()["optim.lr"].description  ->  "Peak learning rate."

Entries of a list are spelled with the index 0, as in ``data.train.0.path``.
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
    """Dotted name -> field, for sections and settings alike, in the order of a recipe."""
    return dict(_walk(Recipe, ()))


def field_at(path: KeyPath) -> FieldInfo | None:
    """The field at ``path`` (any list index will do), or None when there is none."""
    return all_keys().get(dotted(_any_index(path)))


def keys_beside(path: KeyPath) -> tuple[str, ...]:
    """Names that are allowed where the last part of ``path`` stands."""
    prefix = dotted(_any_index(path[:-1]))
    beside = prefix + "." if prefix else ""
    names = (key[len(beside) :] for key in all_keys() if key.startswith(beside))
    return tuple(name for name in names if "." not in name)


def required_keys(field: FieldInfo) -> tuple[str, ...]:
    """Names without a default in the section that ``field`` holds; none if it holds a setting."""
    section = _section_in(field)
    if section is None:
        return ()
    return tuple(name for name, inner in section.model_fields.items() if inner.is_required())


def section_at(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field is, or may be; None for settings and for lists of sections."""
    return None if get_origin(field.annotation) is tuple else _section_in(field)


def _walk(section: type[BaseModel], prefix: KeyPath) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        path = (*prefix, name)
        yield dotted(path), field
        inner = _section_in(field)
        if inner is not None:
            yield from _walk(inner, path if section_at(field) else (*path, 0))


def _section_in(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, if there need be one, or as the entries of a list."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _any_index(path: KeyPath) -> KeyPath:
    return tuple(0 if isinstance(part, int) else part for part in path)
