"""`molmo-tune recipes [NAME] [--to FOLDER]`: list what is bundled, or copy one to edit."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.recipe.bundled import Kind, bundled, list_bundled

_KINDS: tuple[Kind, ...] = ("recipes", "data_templates")


def run(options: argparse.Namespace) -> int:
    """List or copy."""
    if options.copy is None:
        for kind in _KINDS:
            sys.stdout.write(f"{kind.replace('_', ' ')}:\n")
            for name in list_bundled(kind):
                sys.stdout.write(f"  {name:<24}{_first_comment(bundled(kind, name))}\n")
        return 0
    kind = next((k for k in _KINDS if options.copy in list_bundled(k)), "recipes")
    source = bundled(kind, options.copy)
    target: Path = options.to / source.name
    if target.exists():
        raise UserError(target, "exists already", fix="choose another folder with --to")
    try:
        options.to.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise UserError(target, f"cannot be written ({error.strerror})") from error
    sys.stdout.write(f"{target}\n")
    return 0


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
