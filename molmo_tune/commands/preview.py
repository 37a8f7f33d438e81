"""`molmo-tune preview RECIPE --out preview.html`: the frames and tokens that training will use."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from molmo_tune.commands.arguments import add_recipe, positive_int, read_recipe
from molmo_tune.commands.console import new_console

if TYPE_CHECKING:
    from molmo_tune.encoding.encoded import EncodedSample
    from molmo_tune.recipe.sections import Recipe

HELP = "write an HTML preview of model inputs and targets"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, the page and its length."""
    add_recipe(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("preview.html"),
        metavar="FILE",
        help="page to write (default: %(default)s)",
    )
    parser.add_argument(
        "--samples",
        type=positive_int,
        default=50,
        metavar="N",
        help="maximum sequences shown (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    _, recipe = read_recipe(options)
    new_console().print(preview(recipe, options.out, options.samples))
    return 0


def preview(recipe: Recipe, out: Path, max_sequences: int) -> str:
    """Write the preview of a recipe's training data; return one line about it, with timings.

    Raises:
        UserError: labels or media cannot be used, or the page cannot be written.
    """
    from molmo_tune.encoding.datasets import TrainingSet
    from molmo_tune.encoding.sources import limits_of, measure_packing, read_items
    from molmo_tune.model.loading import load_processor
    from molmo_tune.pages.pack_map import first_rows
    from molmo_tune.pages.preview import write_preview

    processor = load_processor(recipe.model.name)
    items, refused = read_items(recipe.data.train, recipe, processor)
    shown = items[:max_sequences]
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
        lead += f" {len(refused)} questions skipped; molmo-tune check says why."
    packing = measure_packing(items, recipe)
    if packing is not None:
        lead += f" Training packs them: {packing}."
    rows = first_rows(items, recipe)
    started = time.perf_counter()
    write_preview(shown, encode, processor.tokenizer, out, lead=lead, rows=rows)
    drawing_s = time.perf_counter() - started - decoding_s
    seconds = f"decoded in {decoding_s:.1f} s, drawn in {drawing_s:.1f} s"
    return f"{len(shown)} sequences in {out} ({seconds})"
