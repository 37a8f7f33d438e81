"""`molmo-tune check RECIPE`: everything that can be known before training, worst first.

The recipe itself is checked before anything heavy is imported. Then labels are read, media probed,
questions built and measured, and every answer is parsed back and compared with its label. With
`--media` every media file is also decoded, as in training. Errors give exit code 1; warnings do
not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from molmo_tune.commands.arguments import add_recipe, read_recipe
from molmo_tune.commands.console import new_console

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.checks.finding import Finding
    from molmo_tune.recipe.sections import Recipe

    CheckMedia = Callable[[Recipe, Callable[[int, int], None]], Iterable[Finding]]

HELP = "check a recipe, its labels and its media before training"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and ``--media``."""
    add_recipe(parser)
    parser.add_argument(
        "--media", action="store_true", help="decode every media file, as in training"
    )


def run(options: argparse.Namespace) -> int:
    """Check and print one line per finding."""
    path, recipe = read_recipe(options)
    console = new_console()
    console.print(f"{path}: recipe is valid")
    return check(recipe, console, decode=options.media)


def check(recipe: Recipe, console: Console, *, decode: bool = False) -> int:
    """Check labels and media, print the findings and return the exit code.

    Args:
        recipe: resolved.
        console: for the findings.
        decode: whether to decode every frame of every media file.
    """
    from molmo_tune.checks.finding import counted, worst_first
    from molmo_tune.checks.recipe_data import check_recipe

    findings = check_recipe(recipe, all_media=decode)
    if decode:
        findings = worst_first([*findings, *_decode_media(recipe, console)])
    for finding in findings:
        console.print(str(finding), highlight=False)
    console.print(counted(findings), highlight=False)
    return 1 if any(finding.severity == "error" for finding in findings) else 0


def _decode_media(recipe: Recipe, console: Console) -> list[Finding]:
    from molmo_tune.checks.finding import Finding
    from molmo_tune.checks.media import check_media
    from molmo_tune.errors import UserError

    try:
        return _with_status(recipe, console, check_media)
    except UserError:  # check_recipe has reported it already
        return [Finding("warning", "--media", "media not decoded; fix the errors first")]


def _with_status(recipe: Recipe, console: Console, check_media: CheckMedia) -> list[Finding]:
    with console.status("opening media") as status:
        return list(
            check_media(recipe, lambda done, total: status.update(f"media {done} of {total}"))
        )
