"""Which sequences share a row in training, for the map at the head of the preview.

The rows are the first ones that training will really make, in its order: packs where the recipe
packs, otherwise one sequence to a row. A row's width is `data.max_tokens`; what stays empty is
padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from molmo_tune.encoding.items import Item
from molmo_tune.encoding.pack_plan import plan_packs, sizes_of
from molmo_tune.encoding.sources import item_sampler, pack_limits_of
from molmo_tune.recipe.sections import Recipe

MAX_ROWS = 12


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence in a row: number of its item, width in per cent of the row, what it is."""

    item: int
    percent: float
    told: str


@dataclass(frozen=True, slots=True)
class Row:
    """What one row holds."""

    segments: tuple[Segment, ...]
    told: str


def first_rows(items: Sequence[Item], recipe: Recipe) -> list[Row]:
    """The rows of the first steps."""
    order = item_sampler(items, recipe)
    sizes, limits = sizes_of(items), pack_limits_of(recipe)
    if limits is None:
        places = [[place] for place in range(min(MAX_ROWS, len(items)))]
    else:
        packer = plan_packs(sizes, limits, order)
        places = [list(packer.next_pack()) for _ in range(MAX_ROWS)]
    rows = []
    for row in places:
        numbers = [order.item_at(place) for place in row]
        tokens, crops = (sum(sizes[number][axis] for number in numbers) for axis in (0, 1))
        told = f"{tokens} of {recipe.data.max_tokens} tokens, {crops} crops or frames"
        segments = tuple(_segment(number, items[number], recipe) for number in numbers)
        rows.append(Row(segments, told))
    return rows


def _segment(number: int, item: Item, recipe: Recipe) -> Segment:
    told = f"{item.sample.id}: {item.num_tokens} tokens, {len(item.conversations)} questions"
    return Segment(number, 100 * item.num_tokens / recipe.data.max_tokens, told)
