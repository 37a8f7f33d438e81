"""`molmo-tune recipes [NAME] [--to FOLDER]`: list the bundled files, or copy one to edit."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import get_args

from molmo_tune.errors import already_exists, cannot_write
from molmo_tune.recipe.bundled import Kind, bundled, list_bundled, unknown_name

HELP = "list the bundled recipes and data templates, or copy one to edit"
_KINDS: tuple[Kind, ...] = get_args(Kind)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the optional name and where to copy."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="recipe or data template to copy")
    parser.add_argument(
        "--to", type=Path, default=Path(), metavar="FOLDER", help="folder to copy to (default: .)"
    )


def run(options: argparse.Namespace) -> int:
    """List or copy."""
    if options.name is None:
        sys.stdout.write("\n\n".join(map(_listing, _KINDS)) + "\n")
    else:
        sys.stdout.write(f"wrote {_copy(options.name, options.to)}\n")
    return 0


def _copy(name: str, folder: Path) -> Path:
    kind = next((kind for kind in _KINDS if name in list_bundled(kind)), None)
    if kind is None:
        raise unknown_name(name, _KINDS)
    source = bundled(kind, name)
    target = folder / source.name
    if target.exists():
        raise already_exists(target, "--to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _listing(kind: Kind) -> str:
    names = list_bundled(kind)
    width = max(map(len, names), default=0)
    rows = [f"  {name:<{width}}  {_description(bundled(kind, name))}" for name in names]
    return "\n".join([f"{kind.replace('_', ' ')}:", *rows])


def _description(path: Path) -> str:
    """The first line of a bundled file: a comment of one sentence."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
