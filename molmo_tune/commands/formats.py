"""`molmo-tune formats`: the label formats that are read; `formats NAME`: what is read of one.

What is told about a format is the text at the head of the module that reads it, so it cannot be
true of another version of the code.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from importlib import import_module

from molmo_tune.errors import UserError
from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.labels.read import READERS


def run(options: argparse.Namespace) -> int:
    """Print the list, or the text about one format."""
    sys.stdout.write(f"{about(options.name) if options.name else listed()}\n")
    return 0


def listed() -> str:
    """A line per format: what a recipe calls it, and what it is."""
    width = max(map(len, READERS))
    lines = [f"{name:<{width}}  {reader.title}" for name, reader in READERS.items()]
    return "\n".join([*lines, "", "molmo-tune formats NAME tells what is read of one."])


def about(name: str) -> str:
    """The text about one format.

    Raises:
        UserError: there is no such format.
    """
    if name not in READERS:
        raise UserError(name, "no label format", f"one of {', '.join(READERS)}")
    text = inspect.cleandoc(import_module(FORMAT_MODULES[name]).__doc__ or "")
    plain = text.replace("``", "").replace("`molmo_tune.labels.", "`")
    return f"{READERS[name].title}; files: {READERS[name].pattern}\n\n{plain}"
