"""`molmo-tune train RECIPE`."""

from __future__ import annotations

import argparse


def run(options: argparse.Namespace) -> int:
    """Train and say where the results are."""
    from molmo_tune.recipe.bundled import bundled
    from molmo_tune.recipe.loader import load_recipe

    recipe = load_recipe(bundled("recipes", options.recipe), options.overrides)
    from rich.console import Console

    from molmo_tune.training.run import train

    console = Console(soft_wrap=True, markup=False)
    result = train(recipe, console, resume=options.resume)
    final = f", final loss {result.losses[-1][1]:.4f}" if result.losses else ""
    console.print(
        f"{result.steps} steps in {result.seconds:.0f} s{final}. "
        f"Next: molmo-tune evaluate {result.run.root}",
        highlight=False,
    )
    return 0
