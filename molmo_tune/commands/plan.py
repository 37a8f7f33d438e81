"""`molmo-tune plan RECIPE`: the GPU memory that training will need, estimated before it starts.

`--memory N` checks whether it fits a GPU with N gigabytes: if not, settings are tried until it
does, and the exit code is 1. `--json` writes the same figures in bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo_tune.commands.arguments import add_recipe, gigabytes, read_recipe
from molmo_tune.commands.console import new_console
from molmo_tune.errors import UserError, cannot_write

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.planning.adjustments import Adjustment
    from molmo_tune.planning.forecast import Forecast
    from molmo_tune.recipe.sections import Recipe

HELP = "estimate training GPU memory, without a GPU or weights"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, the memory and the output."""
    add_recipe(parser)
    parser.add_argument(
        "--memory", type=gigabytes, metavar="GB", help="GPU memory to fit in, e.g., 24"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file for the figures")


def run(options: argparse.Namespace) -> int:
    """Print the forecast; exit code 1 if it does not fit `--memory`."""
    path, recipe = read_recipe(options)
    from molmo_tune.planning.forecast import forecast
    from molmo_tune.planning.render import as_json

    console = new_console()
    with console.status("tracing one step on fake tensors"):
        found = forecast(recipe)
    _print(console, found)
    tried: list[Adjustment] = []
    if options.memory is not None:
        tried = _adjust(console, found, path, options)
    if options.json is not None:
        _write(options.json, as_json(found, options.memory, tried))
    _require_fit(found, path, options.memory, tried)
    return 0


def _write(file: Path, figures: dict[str, Any]) -> None:
    try:
        file.write_text(f"{json.dumps(figures, indent=2)}\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(file, error) from error


def _print(console: Console, found: Forecast) -> None:
    from molmo_tune.planning import render

    console.print(f"counted: {found.counted.source}")
    for table in (
        render.rows_table(found),
        render.memory_table(found),
        render.cards_table(found),
    ):
        console.print(table)
    lines = (render.steps_line(found), render.flops_line(found), *found.remarks)
    for line in (*lines, render.MARGIN, render.OLDER, render.COMPARED):
        console.print(line)


def _adjust(
    console: Console, found: Forecast, path: Path, options: argparse.Namespace
) -> list[Adjustment]:
    """Try and print adjustments one by one; each takes as long as the first forecast."""
    from molmo_tune.planning.adjustments import adjustments
    from molmo_tune.planning.forecast import forecast
    from molmo_tune.planning.gpus import fits, needed_bytes
    from molmo_tune.recipe.loader import load_recipe

    def change(settings: tuple[str, ...]) -> Recipe:
        return load_recipe(path, [*options.overrides, *settings])

    def peak_of(recipe: Recipe) -> int:
        with console.status("tracing one step with other settings"):
            return forecast(recipe, only_largest=True).peak_bytes

    tried = []
    recipe = load_recipe(path, options.overrides)
    does_fit = fits(found.peak_bytes, options.memory)
    verdict = "it fits" if does_fit else "it does not fit; settings tried, in this order"
    console.print(f"{options.memory:g} GB: {verdict}")
    for one in adjustments(
        recipe, found.peak_bytes, options.memory, change=change, peak_of=peak_of
    ):
        settings = " ".join(f"--set {setting}" for setting in one.settings)
        console.print(f"{needed_bytes(one.peak_bytes) / 1e9:8.2f} GB with {settings}")
        tried.append(one)
    return tried


def _require_fit(
    found: Forecast, path: Path, memory_gb: float | None, tried: list[Adjustment]
) -> None:
    """Raise `UserError` if the recipe does not fit as it is."""
    from molmo_tune.planning.gpus import BYTES_PER_GB, fits, needed_bytes

    if memory_gb is None or fits(found.peak_bytes, memory_gb):
        return
    last = tried[-1].peak_bytes if tried else found.peak_bytes
    fix = "no setting tried makes it fit; use a larger GPU"
    if fits(last, memory_gb):
        fix = "add all settings listed above"
    usable_gb, usable_fraction = BYTES_PER_GB * memory_gb / 1e9, BYTES_PER_GB / 1e9
    raise UserError(
        path,
        f"needs {needed_bytes(found.peak_bytes) / 1e9:.2f} GB",
        f"at most {usable_gb:.2f} GB ({usable_fraction:.0%} of --memory)",
        fix,
    )
