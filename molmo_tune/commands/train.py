"""`molmo-tune train RECIPE`: fine-tune, or resume an interrupted run."""

from __future__ import annotations

import argparse

from molmo_tune.commands.arguments import add_recipe, read_recipe
from molmo_tune.commands.console import new_console

HELP = "fine-tune from a recipe"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and ``--resume``."""
    add_recipe(parser)
    parser.add_argument(
        "--resume", action="store_true", help="resume from the run's last checkpoint"
    )


def run(options: argparse.Namespace) -> int:
    """Train and print where the results are."""
    _, recipe = read_recipe(options)
    from molmo_tune.training.run import train

    console = new_console()
    result = train(recipe, console, resume=options.resume)
    final = f", final loss {result.losses[-1][1]:.4f}" if result.losses else ""
    console.print(
        f"{result.steps} steps in {result.seconds:.0f} s{final}. "
        f"Next: molmo-tune evaluate {result.run.root}"
    )
    return 0
