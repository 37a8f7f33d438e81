"""`molmo-tune preview RECIPE --out preview.html`."""

from __future__ import annotations

import argparse
from pathlib import Path

from molmo_tune.recipe.bundled import bundled
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe


def run(options: argparse.Namespace) -> int:
    """Write the page and say where."""
    recipe = load_recipe(bundled("recipes", options.recipe), options.overrides)
    from rich.console import Console

    shown = preview(recipe, options.out, options.samples)
    Console(soft_wrap=True).print(f"{shown} sequences in {options.out}", highlight=False)
    return 0


def preview(recipe: Recipe, out: Path, max_samples: int) -> int:
    """The preview page of a recipe's training data."""
    from molmo_tune.encoding.datasets import TrainingSet
    from molmo_tune.encoding.sources import limits_of, measure_packing, read_items
    from molmo_tune.model.loading import load_processor
    from molmo_tune.pages.preview import write_preview

    processor = load_processor(recipe.model.name)
    items, _ = read_items(recipe.data.train, recipe, processor)
    training_set = TrainingSet(items, processor, limits_of(recipe), recipe.loss.weighting)
    packing = measure_packing(items, recipe)
    note = f" In training they share rows: {packing}." if packing is not None else ""
    return write_preview(training_set, processor, out, max_samples, note)
