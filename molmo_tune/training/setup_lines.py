"""The lines a run prints before it trains: skipped data, packing, parameters, precision."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from molmo_tune.encoding.items import Item, Refused
from molmo_tune.encoding.sources import SourceShare, measure_packing
from molmo_tune.model.adapters import parameter_table
from molmo_tune.model.attention_backends import backend_of
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.precision import precision_of


def print_skipped(console: Console, refused: Sequence[Refused]) -> None:
    """Print a line per reason, with the first three samples."""
    by_reason: dict[str, list[Refused]] = {}
    for one in refused:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, ones in by_reason.items():
        first = ", ".join(f"{one.sample_id} ({one.label})" for one in ones[:3])
        console.print(f"skipped {len(ones)}: {reason}: {first}", highlight=False)


def print_shares(console: Console, shares: Sequence[SourceShare]) -> None:
    """Print how sampling weights divide the samples among the sources, if the recipe sets any."""
    if shares:
        listed = ", ".join(f"{one.source.path} {one.share:.1%}" for one in shares)
        console.print(f"sources: {listed} of samples", highlight=False)


def print_packing(console: Console, recipe: Recipe, items: Sequence[Item]) -> None:
    """Print how full the packs will be, if the recipe packs."""
    figures = measure_packing(items, recipe)
    if figures is not None:
        console.print(f"packing: {figures}", highlight=False)


def print_parameters(console: Console, module: MolmoModule, recipe: Recipe) -> None:
    """Print a line per component with its parameters, and one with the way it is trained."""
    for component, total, trained in parameter_table(module.model):
        percent = f"{trained / total:.2%}" if total else "-"
        counts = f"{total:>16,}  trainable {trained:>12,}  {percent}"
        console.print(f"{component:<10}{counts}", highlight=False)
    dtype = str(module.bare_model.lm_head.weight.dtype).removeprefix("torch.")
    quantized = f", language model in {recipe.model.quantize}" if recipe.model.quantize else ""
    console.print(
        f"{recipe.adapter.method} on {', '.join(recipe.adapter.targets)}; base in {dtype}"
        f"{quantized}; {precision_of(recipe)}; attention {backend_of(module.bare_model)}",
        highlight=False,
    )
