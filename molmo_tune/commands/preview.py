"""`molmo-tune preview RECIPE --out preview.html`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from molmo_tune.recipe.bundled import bundled
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe

if TYPE_CHECKING:
    from molmo_tune.encoding.encoded import EncodedSample


def run(options: argparse.Namespace) -> int:
    """Write the page and say where."""
    recipe = load_recipe(bundled("recipes", options.recipe), options.overrides)
    from rich.console import Console

    told = preview(recipe, options.out, options.samples)
    Console(soft_wrap=True, markup=False).print(told, highlight=False)
    return 0


def preview(recipe: Recipe, out: Path, max_samples: int) -> str:
    """The preview page of a recipe's training data; says what was written and how long it took."""
    from molmo_tune.encoding.datasets import TrainingSet
    from molmo_tune.encoding.sources import limits_of, measure_packing, read_items
    from molmo_tune.model.loading import load_processor
    from molmo_tune.pages.pack_map import first_rows
    from molmo_tune.pages.preview import write_preview

    processor = load_processor(recipe.model.name)
    items, refused = read_items(recipe.data.train, recipe, processor)
    shown = items[:max_samples]
    training_set = TrainingSet(shown, processor, limits_of(recipe), recipe.loss.weighting)
    decoding_s = 0.0

    def encode(number: int) -> EncodedSample:
        nonlocal decoding_s
        started = time.perf_counter()
        encoded = training_set[number]
        decoding_s += time.perf_counter() - started
        return encoded

    lead = f"{len(shown)} of {len(items)} sequences."
    if refused:
        lead += f" {len(refused)} questions are left out; molmo-tune check says why."
    packing = measure_packing(items, recipe)
    if packing is not None:
        lead += f" In training they share rows: {packing}."
    rows = first_rows(items, recipe)
    started = time.perf_counter()
    write_preview(shown, encode, processor.tokenizer, out, lead=lead, rows=rows)
    drawing_s = time.perf_counter() - started - decoding_s
    seconds = f"decoded in {decoding_s:.1f} s, drawn in {drawing_s:.1f} s"
    return f"{len(shown)} sequences in {out} ({seconds})"
