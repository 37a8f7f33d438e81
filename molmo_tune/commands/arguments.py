"""Arguments that several verbs share, and types of arguments with errors in plain words."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from molmo_tune.recipe.sections import Recipe

MAX_FPS = 1000


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and ``--set``."""
    parser.add_argument("recipe", help="recipe file, or name of a bundled recipe")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a recipe key, e.g., --set optim.lr=2e-4; repeatable",
    )


def read_recipe(options: argparse.Namespace) -> tuple[Path, Recipe]:
    """Return the path and the contents of the recipe that `add_recipe` asked for.

    Raises:
        UserError: no such recipe, or errors in it.
    """
    from molmo_tune.recipe.bundled import bundled
    from molmo_tune.recipe.loader import load_recipe

    path = bundled("recipes", options.recipe)
    return path, load_recipe(path, options.overrides)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    return _integer(text, minimum=1)


def seed(text: str) -> int:
    """Parse a seed."""
    return _integer(text, minimum=0)


def fps(text: str) -> float:
    """Parse frames per second."""
    number = _number(text)
    if not 0 < number < MAX_FPS:
        raise argparse.ArgumentTypeError(f"must be above 0 and below {MAX_FPS}, not {text}")
    return number


def gigabytes(text: str) -> float:
    """Parse a size in gigabytes."""
    number = _number(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


def _integer(text: str, *, minimum: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, not {text!r}") from None
    if number < minimum:
        raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {text}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
