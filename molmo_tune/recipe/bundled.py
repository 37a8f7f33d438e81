"""Find the recipes and data templates that come with the package.

A bare name means the bundled file, a path the user's copy:

    bundled("recipes", "tracking")          <package>/_bundled/recipes/tracking.yaml in a wheel,
                                            <repository>/recipes/tracking.yaml in a checkout
    bundled("recipes", "./tracking.yaml")   ./tracking.yaml

Limitations: nothing is read, so the path of a missing file is returned; its reader reports it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from molmo_tune.errors import UserError

Kind = Literal["recipes", "data_templates"]

MAX_LISTED = 8
"""Choices that an error lists; for more it names the command that does."""

_NOUNS: dict[Kind, str] = {"recipes": "recipe", "data_templates": "data template"}
_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIXES = (".yaml", ".yml")


def bundled(kind: Kind, name: str) -> Path:
    """Return the file with this name: a bundled one, or the user's if the name is a path.

    Raises:
        UserError: a bare name that is not bundled; the message lists the bundled names.
    """
    if _is_path(name):
        return Path(name)
    stem = name.removesuffix(".yaml")
    if stem in list_bundled(kind):
        return _folder(kind) / f"{stem}.yaml"
    raise unknown_name(name, [kind])


def list_bundled(kind: Kind) -> tuple[str, ...]:
    """Return the bare names of the bundled files, sorted; none if the build lacks them."""
    return tuple(sorted(path.stem for path in _folder(kind).glob("*.yaml")))


def _is_path(name: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    if any(separator in name for separator in separators):
        return True
    return name.endswith(_SUFFIXES) and Path(name).is_file()


def _folder(kind: Kind) -> Path:
    """The wheel's folder first: some other folder called recipes can be next to the package."""
    in_wheel = _PACKAGE / "_bundled" / kind
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / kind


def unknown_name(name: str, kinds: Sequence[Kind]) -> UserError:
    """Return the error for a name that is not among the bundled files of these kinds."""
    names = [name for kind in kinds for name in list_bundled(kind)]
    nouns = " or ".join(_NOUNS[kind] for kind in kinds)
    is_file_name = name.endswith(_SUFFIXES)
    found = f"no such file or bundled {nouns}" if is_file_name else f"not a bundled {nouns}"
    if not names:
        return UserError(name, found, "the path of a file", f"this build has no {nouns}s")
    close = get_close_matches(name.removesuffix(".yaml").lower(), names, n=1)
    listed = f"one of {', '.join(names)}" if len(names) <= MAX_LISTED else ""
    fix = "run molmo-tune recipes for the list" if not listed else "give the path of a file"
    return UserError(name, found, listed, f"did you mean {close[0]}?" if close else fix)
