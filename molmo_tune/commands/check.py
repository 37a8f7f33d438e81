"""`molmo-tune check RECIPE`: everything that can be known before training, worst first.

The recipe itself is checked before anything heavy is imported. Then labels are read, media probed,
questions built and measured, and every answer is read back and compared with the label it was
written from. With `--media` every medium is decoded as well, as training would. Errors give exit
code 1; warnings do not.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from molmo_tune.recipe.bundled import bundled
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.checks.finding import Finding


def run(options: argparse.Namespace) -> int:
    """Check and print one line per finding."""
    path = bundled("recipes", options.recipe)
    recipe = load_recipe(path, options.overrides)
    from rich import console as rich_console

    console = rich_console.Console(soft_wrap=True, markup=False)
    console.print(f"{path}: the recipe is sound", highlight=False)
    return check(recipe, console, decode=options.media)


def check(recipe: Recipe, console: Console, *, decode: bool = False) -> int:
    """Check data and media, on wish to the last frame; returns the exit code."""
    from molmo_tune.checks.finding import counted, worst_first
    from molmo_tune.checks.recipe_data import check_recipe

    findings = check_recipe(recipe, all_media=decode)
    if decode:
        findings = worst_first([*findings, *_media(recipe, console)])
    for finding in findings:
        console.print(str(finding), highlight=False)
    console.print(counted(findings), highlight=False)
    if any(finding.severity == "error" for finding in findings):
        return 1
    return 0


def _media(recipe: Recipe, console: Console) -> list[Finding]:
    from molmo_tune.checks.finding import Finding
    from molmo_tune.checks.media import check_media
    from molmo_tune.errors import UserError

    try:
        return _decoded(recipe, console, check_media)
    except UserError:  # found and told already
        return [Finding("warning", "--media", "nothing was decoded: mend the errors first")]


def _decoded(recipe: Recipe, console: Console, check_media: Any) -> list[Finding]:
    with console.status("opening media") as status:
        return list(
            check_media(recipe, lambda done, total: status.update(f"media {done} of {total}"))
        )
