"""`molmo-tune formats`: the supported label formats; `formats NAME`: what is read of one.

The description of a format is the docstring of the module that reads it, so the two cannot
disagree.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from importlib import import_module

from molmo_tune.errors import UserError

HELP = "list the supported label formats, or describe one"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the optional name."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="format to describe")


def run(options: argparse.Namespace) -> int:
    """Print the list, or the description of one format."""
    sys.stdout.write(f"{describe(options.name) if options.name else list_formats()}\n")
    return 0


def list_formats() -> str:
    """Return a line per format: its name in a recipe, and its title."""
    from molmo_tune.labels.read import READERS

    width = max(map(len, READERS))
    lines = [f"{name:<{width}}  {reader.title}" for name, reader in READERS.items()]
    return "\n".join([*lines, "", "Run molmo-tune formats NAME for details."])


def describe(name: str) -> str:
    """Return title, file pattern and description of a format.

    Raises:
        UserError: no such format.
    """
    from molmo_tune.label_formats import FORMAT_MODULES
    from molmo_tune.labels.read import READERS

    if name not in READERS:
        raise UserError(name, "not a label format", fix="run molmo-tune formats for the list")
    text = inspect.cleandoc(import_module(FORMAT_MODULES[name]).__doc__ or "")
    plain = text.replace("``", "").replace("`molmo_tune.labels.", "`")
    return f"{READERS[name].title}; files: {READERS[name].pattern}\n\n{plain}"
