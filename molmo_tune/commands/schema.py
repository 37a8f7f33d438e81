"""`molmo-tune schema`: the JSON Schema of a recipe, on standard output."""

from __future__ import annotations

import argparse
import json
import sys

HELP = "print the recipe JSON Schema, for editors"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no options."""


def run(_options: argparse.Namespace) -> int:
    """Print the schema."""
    from molmo_tune.recipe.saving import recipe_json_schema

    sys.stdout.write(json.dumps(recipe_json_schema(), indent=2) + "\n")
    return 0
