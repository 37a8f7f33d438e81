"""Finds the recipes and data templates that come with the package.

A bare name means the bundled file, a path means the user's copy:

    bundled("recipes", "tracking")          <package>/_bundled/recipes/tracking.yaml in a wheel,
                                            <repository>/recipes/tracking.yaml in a checkout
    bundled("recipes", "./tracking.yaml")   ./tracking.yaml

Nothing is read here, so a path is returned even when there is no such file; the reader says so.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from molmo_tune.errors import UserError

Kind = Literal["recipes", "data_templates"]

_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIXES = (".yaml", ".yml")


def bundled(kind: Kind, name: str) -> Path:
    """The file that ``name`` stands for: a bundled one, or the user's when it is a path.

    Raises:
        UserError: for a bare name that is not bundled; the message lists those that are.
    """
    if _is_path(name):
        return Path(name)
    stem = name.removesuffix(".yaml")
    if stem in list_bundled(kind):
        return _folder(kind) / f"{stem}.yaml"
    raise _unknown(kind, stem)


def list_bundled(kind: Kind) -> tuple[str, ...]:
    """Bare names of the bundled files, sorted; empty when the package was built without them."""
    return tuple(sorted(path.stem for path in _folder(kind).glob("*.yaml")))


def _is_path(name: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    if any(separator in name for separator in separators):
        return True
    return name.endswith(_SUFFIXES) and Path(name).is_file()


def _folder(kind: Kind) -> Path:
    """The wheel's folder first: beside an installed package may lie anything called recipes."""
    in_wheel = _PACKAGE / "_bundled" / kind
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / kind


def _unknown(kind: Kind, stem: str) -> UserError:
    names = list_bundled(kind)
    close = get_close_matches(stem.lower(), names, n=1)
    noun = "recipe" if kind == "recipes" else "data template"
    listed = f"one of {', '.join(names)}" if names else f"a path; this build has no {noun}s"
    fix = f"did you mean {close[0]}?" if close else "give a path to name a file of your own"
    return UserError(stem, f"there is no bundled {noun} of that name", listed, fix)
