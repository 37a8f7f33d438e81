"""The recipe's data sources → items: the one road from label files to sequences.

`check`, `preview`, `train` and `evaluate` all call this, so what is checked and shown is what is
trained and scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from molmo_tune.encoding.items import Item, ItemPlan, MediaLimits, Refused, plan_items
from molmo_tune.encoding.order import ItemOrder
from molmo_tune.encoding.pack_plan import PackFigures, measure_packs, sizes_of
from molmo_tune.encoding.packing import Size
from molmo_tune.errors import UserError
from molmo_tune.labels.readers import read_labels
from molmo_tune.labels.report import ConversionReport
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.table import TableLayout
from molmo_tune.recipe.sections import Columns, DataSource, Recipe
from molmo_tune.templates.template import load_template


@dataclass(frozen=True, slots=True)
class SourceData:
    """One data source, read and planned."""

    source: DataSource
    samples: tuple[Sample, ...]
    report: ConversionReport
    plan: ItemPlan


def limits_of(recipe: Recipe) -> MediaLimits:
    """The recipe's caps on media."""
    video = recipe.video
    return MediaLimits(video.max_frames, video.max_fps, recipe.image.max_crops, video.sampling)


def pack_limits_of(recipe: Recipe) -> Size | None:
    """Tokens and crops of a row with several samples; None when the recipe does not pack."""
    data = recipe.data
    return Size(data.max_tokens, data.max_crops_per_pack) if data.packing else None


def measure_packing(items: Sequence[Item], recipe: Recipe) -> PackFigures | None:
    """How full the recipe's packs of these items will be; None when it does not pack."""
    limits = pack_limits_of(recipe)
    if limits is None or not items:
        return None
    order = ItemOrder(len(items), seed=recipe.seed, shuffle=recipe.data.shuffle)
    return measure_packs(sizes_of(items), limits, order)


def layout_of(source: DataSource) -> TableLayout | None:
    """What the columns of a plain table mean; None for formats that say so themselves.

    Raises:
        UserError: a table whose columns are not all named, or columns for another format.
    """
    columns, units = source.columns, source.units
    if source.labels != "table":
        if columns != Columns() or units is not None:
            found = f"columns or units for labels: {source.labels}"
            raise UserError(source.path, found, "them for labels: table only")
        return None
    shape = columns.box or columns.point
    is_whole = (len(columns.box), len(columns.point)) in ((4, 0), (0, 2))
    if columns.image is None or columns.label is None or units is None or not is_whole:
        expected = "units, and columns for image, label and either box (4) or point (2)"
        raise UserError(source.path, "a table without its columns or units", expected)
    return TableLayout(columns.image, columns.label, shape, units, source.box)


def read_source(source: DataSource, recipe: Recipe, processor: Any) -> SourceData:
    """Read one source's labels and plan its items.

    Raises:
        UserError: the labels, their media or the template cannot be used.
    """
    template = load_template(source.template)
    samples, report = read_labels(source.labels, source.path, source.media, layout_of(source))
    kept = tuple(samples[: source.max_samples])
    plan = plan_items(
        kept,
        template,
        processor,
        limits_of(recipe),
        max_tokens=recipe.data.max_tokens,
        seed=recipe.seed,
        weight=source.weight,
    )
    return SourceData(source, kept, report, plan)


def read_items(
    sources: Sequence[DataSource], recipe: Recipe, processor: Any
) -> tuple[list[Item], list[Refused]]:
    """Items of several sources in order, and everything that was refused."""
    read = [read_source(source, recipe, processor) for source in sources]
    items = [item for data in read for item in data.plan.items]
    return items, [refused for data in read for refused in data.plan.refused]
