"""Items of the recipe's data sources: the one pipeline from label files to sequences.

`check`, `preview`, `train` and `evaluate` all use it, so they check and show exactly the data that
is trained on and scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from molmo_tune.encoding.items import Item, ItemPlan, MediaLimits, Refused, plan_items
from molmo_tune.encoding.pack_plan import PackFigures, measure_packs, sizes_of
from molmo_tune.encoding.packing import Size
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sampler import ItemSampler, Mixture
from molmo_tune.labels.formats.table.table import layout_of
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.report import ConversionReport
from molmo_tune.labels.sample import Sample
from molmo_tune.media.array_cache import CachePlace
from molmo_tune.media.resized_frames import Reading
from molmo_tune.recipe.sections import CacheSection, DataSource, Recipe
from molmo_tune.templates.template import load_template


@dataclass(frozen=True, slots=True)
class SourceData:
    """One data source, read and planned."""

    source: DataSource
    samples: tuple[Sample, ...]
    report: ConversionReport
    plan: ItemPlan


def limits_of(recipe: Recipe) -> MediaLimits:
    """Return the recipe's caps on media, and how it reads them."""
    video = recipe.video
    reading = Reading(video.decoder, video.timeout_s, cache_place(recipe.data.frame_cache))
    crops = recipe.image.max_crops
    return MediaLimits(video.max_frames, video.max_fps, crops, video.sampling, reading)


def cache_place(cache: CacheSection) -> CachePlace | None:
    """Return the location of a recipe's cache; None when it has none."""
    return CachePlace(cache.dir, int(cache.max_gb * 1e9)) if cache.dir is not None else None


def pack_limits_of(recipe: Recipe) -> Size | None:
    """Return the limits of a pack; None when the recipe does not pack."""
    data = recipe.data
    return Size(data.max_tokens, data.max_crops_per_pack) if data.packing else None


@dataclass(frozen=True, slots=True)
class SourceShare:
    """Share of the training samples that come from one source.

    ``number`` counts in `data.train` from 0; ``repeats`` says how often each of its items comes per
    epoch, on average.
    """

    number: int
    source: DataSource
    share: float
    repeats: float


def source_shares(items: Sequence[Item], recipe: Recipe) -> list[SourceShare]:
    """Return how the recipe's weights divide the samples; empty when it sets none."""
    mixture = mixture_of(items, recipe)
    if mixture is None:
        return []
    numbers = sorted({item.source for item in items})
    return [
        SourceShare(number, recipe.data.train[number], share, repeats)
        for number, share, repeats in zip(numbers, mixture.shares, mixture.repeats, strict=True)
    ]


def mixture_of(items: Sequence[Item], recipe: Recipe) -> Mixture | None:
    """Return the weights of the sources of these training items; None when the recipe sets none."""
    sources = recipe.data.train
    if all(source.weight is None for source in sources):
        return None
    counts = Counter(item.source for item in items)
    weights = [sources[number].weight for number in sorted(counts)]
    return Mixture(
        tuple(counts[number] for number in sorted(counts)),
        tuple(1.0 if weight is None else weight for weight in weights),
    )


def item_sampler(items: Sequence[Item], recipe: Recipe) -> ItemSampler:
    """Return the order in which the recipe trains on these items."""
    shuffle, mixture = recipe.data.shuffle, mixture_of(items, recipe)
    return ItemSampler(len(items), seed=recipe.seed, shuffle=shuffle, mixture=mixture)


def measure_packing(items: Sequence[Item], recipe: Recipe) -> PackFigures | None:
    """Return how full the recipe's packs of these items will be; None when it does not pack."""
    limits = pack_limits_of(recipe)
    if limits is None or not items:
        return None
    return measure_packs(sizes_of(items), limits, item_sampler(items, recipe))


def read_source(
    source: DataSource, recipe: Recipe, processor: Processor, number: int = 0
) -> SourceData:
    """Read one source's labels and plan its items; ``number`` counts the sources from 0.

    Raises:
        UserError: the labels, their media or the template are not usable.
    """
    template = load_template(source.template)
    samples, report = read_labels(source.format, source.path, source.media, layout_of(source))
    kept = tuple(samples[: source.max_samples])
    plan = plan_items(
        kept,
        template,
        processor,
        limits_of(recipe),
        max_tokens=recipe.data.max_tokens,
        seed=recipe.seed,
        loss_weight=source.loss_weight,
        source=number,
    )
    return SourceData(source, kept, report, plan)


def read_items(
    sources: Sequence[DataSource], recipe: Recipe, processor: Processor
) -> tuple[list[Item], list[Refused]]:
    """Return the items of several sources in order, and everything that was refused."""
    read = [read_source(source, recipe, processor, n) for n, source in enumerate(sources)]
    items = [item for data in read for item in data.plan.items]
    return items, [refused for data in read for refused in data.plan.refused]
