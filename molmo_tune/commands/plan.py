"""`molmo-tune plan RECIPE`: the memory of a GPU that training will take, before it is started.

With `--memory N` the question is whether it fits a card of N gigabytes: if not, settings are tried
that make it fit, and the exit code is 1. `--json` writes the same figures in bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo_tune.errors import UserError
from molmo_tune.recipe.bundled import bundled
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.planning.adjustments import Adjustment
    from molmo_tune.planning.forecast import Forecast


def run(options: argparse.Namespace) -> int:
    """Forecast, print, and answer whether it fits."""
    path = bundled("recipes", options.recipe)
    recipe = load_recipe(path, options.overrides)
    from rich.console import Console

    from molmo_tune.planning.forecast import forecast
    from molmo_tune.planning.render import as_json

    console = Console(soft_wrap=True, markup=False)
    with console.status("one step on tensors without memory"):
        found = forecast(recipe)
    _print(console, found)
    tried: list[Adjustment] = []
    if options.memory is not None:
        tried = _remedies(console, found, path, options)
    if options.json is not None:
        _write(options.json, as_json(found, options.memory, tried))
    _require_fit(found, path, options.memory, tried)
    return 0


def _write(file: Path, figures: dict[str, Any]) -> None:
    try:
        file.write_text(f"{json.dumps(figures, indent=2)}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(file, f"cannot be written ({error.strerror})") from error


def _print(console: Console, found: Forecast) -> None:
    from molmo_tune.planning import render as told

    console.print(f"counted: {found.counted.source}", highlight=False)
    for table in (told.rows_table(found), told.memory_table(found), told.cards_table(found)):
        console.print(table)
    lines = (told.steps_line(found), told.flops_line(found), *found.remarks)
    for line in (*lines, told.MARGIN, told.OLDER, told.COMPARED):
        console.print(line, highlight=False)


def _remedies(
    console: Console, found: Forecast, path: Path, options: argparse.Namespace
) -> list[Adjustment]:
    """Tried and printed one by one; each takes as long as the first forecast."""
    from molmo_tune.planning.adjustments import adjustments
    from molmo_tune.planning.forecast import forecast
    from molmo_tune.planning.gpus import fits, needed_bytes

    def change(settings: tuple[str, ...]) -> Recipe:
        return load_recipe(path, [*options.overrides, *settings])

    def peak_of(recipe: Recipe) -> int:
        with console.status("another step with other settings"):
            return forecast(recipe, only_largest=True).peak_bytes

    tried = []
    recipe = load_recipe(path, options.overrides)
    verdict = (
        "it fits" if fits(found.peak_bytes, options.memory) else "it does not fit; tried, in turn"
    )
    console.print(f"{options.memory:g} GB: {verdict}", highlight=False)
    for one in adjustments(
        recipe, found.peak_bytes, options.memory, change=change, peak_of=peak_of
    ):
        told = " ".join(f"--set {setting}" for setting in one.settings)
        needs = f"{needed_bytes(one.peak_bytes) / 1e9:8.2f} GB with"
        console.print(f"{needs} {told}", highlight=False)
        tried.append(one)
    return tried


def _require_fit(
    found: Forecast, path: Path, memory_gb: float | None, tried: list[Adjustment]
) -> None:
    """Raise `UserError` when the recipe as it is does not fit."""
    from molmo_tune.planning.gpus import BYTES_PER_GB, fits, needed_bytes

    if memory_gb is None or fits(found.peak_bytes, memory_gb):
        return
    last = tried[-1].peak_bytes if tried else found.peak_bytes
    fix = "nothing that was tried makes it fit: a larger card"
    if fits(last, memory_gb):
        fix = "add the settings above, each with those before it"
    raise UserError(
        path,
        f"needs {needed_bytes(found.peak_bytes) / 1e9:.1f} GB",
        f"at most {BYTES_PER_GB * memory_gb / 1e9:.1f} of the {memory_gb:g} GB of --memory",
        fix,
    )
