"""`molmo-tune schema`: print the JSON schema of a recipe."""

from __future__ import annotations

import argparse
import json
import sys


def run(_options: argparse.Namespace) -> int:
    """Print it."""
    from molmo_tune.recipe.saving import recipe_json_schema

    sys.stdout.write(json.dumps(recipe_json_schema(), indent=2) + "\n")
    return 0
