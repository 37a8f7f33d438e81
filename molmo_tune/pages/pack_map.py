"""Packs of the first training steps, for the map at the top of the preview.

The rows are the first ones of training, in its order: packs if the recipe packs, otherwise one
sequence per row. The width of a row is `data.max_tokens`; the empty part is padding.
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
    """One sequence in a row: index of its item, width in percent of the row, description."""

    item: int
    percent: float
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """The sequences of one row, and its description."""

    segments: tuple[Segment, ...]
    title: str


def first_rows(items: Sequence[Item], recipe: Recipe) -> list[Row]:
    """Return the rows of the first steps, at most MAX_ROWS."""
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
        title = f"{tokens} of {recipe.data.max_tokens} tokens, {crops} crops or frames"
        segments = tuple(_segment(number, items[number], recipe) for number in numbers)
        rows.append(Row(segments, title))
    return rows


def _segment(number: int, item: Item, recipe: Recipe) -> Segment:
    title = f"{item.sample.id}: {item.num_tokens} tokens, {len(item.conversations)} questions"
    return Segment(number, 100 * item.num_tokens / recipe.data.max_tokens, title)
