"""The phase that reads and checks the data: labels to items, before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from molmo_tune.encoding.items import Item, Refused
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import SourceShare, cache_place, read_items, source_shares
from molmo_tune.media.array_cache import cache_at
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.callbacks.media_monitor import MediaMonitor
from molmo_tune.training.run_start import RunStart
from molmo_tune.training.setup_lines import print_packing, print_shares, print_skipped


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Items and refusals of both splits, the monitor of the training media, and sampling shares.

    ``shares`` is empty if the recipe sets no sampling weight.
    """

    processor: Processor
    train: list[Item]
    val: list[Item]
    refused: list[Refused]
    refused_val: list[Refused]
    media: MediaMonitor
    shares: list[SourceShare]


def read_data(start: RunStart, processor: Processor) -> TrainingData:
    """Read the labels of both splits and print what was skipped.

    Raises:
        UserError: labels, templates or caches cannot be used, or too many media are unreadable.
    """
    recipe, console = start.recipe, start.console
    train, refused = read_items(recipe.data.train, recipe, processor)
    val, refused_val = read_items(recipe.data.val, recipe, processor)
    print_skipped(console, refused + refused_val)
    shares = source_shares(train, recipe)
    print_shares(console, shares)
    print_packing(console, recipe, train)
    media = _monitor(start, train, refused)
    _require_caches(recipe)
    return TrainingData(processor, train, val, refused, refused_val, media, shares)


def with_unreadable(start: RunStart, data: TrainingData, bad: Sequence[Refused]) -> TrainingData:
    """Return the data with more training media known to be unreadable.

    Raises:
        UserError: these are too many.
    """
    refused = [*data.refused, *bad]
    return replace(data, refused=refused, media=_monitor(start, data.train, refused))


def _monitor(start: RunStart, items: Sequence[Item], refused: Sequence[Refused]) -> MediaMonitor:
    limit = start.recipe.data.max_unreadable_media
    return MediaMonitor.of_items(start.console, items, refused, limit)


def _require_caches(recipe: Recipe) -> None:
    for name in ("frame_cache", "feature_cache"):
        place = cache_place(getattr(recipe.data, name))
        if place is not None:
            cache_at(place).require(f"data.{name}.dir")
