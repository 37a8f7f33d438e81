"""All questions to the data of a recipe, in one pass: labels are read and items planned once.

Nothing is decoded but a few pictures for `leaks`, and no model is loaded. What a
source says of itself (unreadable, losses, things left out) is found here; the rest in the modules
beside this one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from molmo_tune.checks.answers import unlike_their_labels
from molmo_tune.checks.balance import about_labels, unseen_labels
from molmo_tune.checks.budget import about_budget
from molmo_tune.checks.finding import Finding, examples, worst_first
from molmo_tune.checks.frames import about_frames
from molmo_tune.checks.leaks import about_leaks
from molmo_tune.encoding.items import Refused
from molmo_tune.encoding.sources import SourceData, read_source
from molmo_tune.errors import UserError
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.sections import DataSource, Recipe
from molmo_tune.run_folder import RunFolder


def check_recipe(recipe: Recipe, *, all_pictures: bool = False) -> list[Finding]:
    """All findings about the recipe's data, worst first.

    Args:
        recipe: whose training and validation data are looked at.
        all_pictures: compare every medium of the two parts, not some hundreds.
    """
    processor = load_processor(recipe.model.name)
    findings: list[Finding] = []
    read: dict[str, list[SourceData]] = {"train": [], "val": []}
    for split, sources in (("train", recipe.data.train), ("val", recipe.data.val)):
        for number, source in enumerate(sources):
            where = f"data.{split}.{number}"
            try:
                data = read_source(source, recipe, processor, number)
            except UserError as error:
                findings.append(Finding("error", where, str(error)))
                continue
            read[split].append(data)
            findings += _about_source(where, source, data, recipe.seed)
        findings += _repeated_ids(f"data.{split}", read[split])
    findings += _about_parts(recipe, read["train"], read["val"], all_pictures)
    findings += _about_preference(recipe)
    findings += about_budget(recipe, read["train"], processor)
    return worst_first(findings)


def _about_source(where: str, source: DataSource, data: SourceData, seed: int) -> Iterator[Finding]:
    report, items = data.report, data.plan.items
    if report.num_dropped:
        text = f"{report.num_dropped} annotations are lost: {examples(report.dropped)}"
        yield Finding("warning", where, text, report.num_dropped)
    for told in (*report.corrected, *report.notes):
        yield Finding("warning", where, str(told))
    for reason, ones in _by_reason(data.plan.refused).items():
        named = [f"{one.sample_id} ({one.label})" if one.label else one.sample_id for one in ones]
        text = f"{len(ones)} left out, {reason}: {examples(named)}"
        yield Finding("warning", where, text, len(ones))
    yield Finding(
        "note",
        where,
        f"{source.path}: {len(data.samples)} samples, {data.plan.num_conversations} questions, "
        f"{sum(item.num_tokens for item in items)} tokens",
    )
    yield from about_frames(where, items)
    yield from unlike_their_labels(where, items, seed)
    yield from about_labels(where, items)


def _about_parts(
    recipe: Recipe, train: Sequence[SourceData], val: Sequence[SourceData], all_pictures: bool
) -> Iterator[Finding]:
    if not recipe.data.val:
        text = "there is none: nothing will show whether the model got better"
        yield Finding("warning", "data.val", text)
    if train and val:
        yield from about_leaks(train, val, all_pictures=all_pictures)
        yield from unseen_labels(train, val)


def _about_preference(recipe: Recipe) -> Iterator[Finding]:
    """Whether there is a run to go on from; what it holds is looked at in training."""
    if recipe.preference is None:
        return
    try:
        RunFolder(recipe.preference.from_run).require_trained()
    except UserError as error:
        yield Finding("error", "preference.from_run", str(error))


def _repeated_ids(where: str, read: Sequence[SourceData]) -> Iterator[Finding]:
    """Reports and predictions name samples by their ids."""
    distinct = {(s.id, s.media.paths) for data in read for s in data.samples}
    ids = Counter(name for name, _ in distinct)
    repeated = [name for name, times in ids.items() if times > 1]
    if repeated:
        text = f"{len(repeated)} ids stand for several samples: {examples(repeated)}"
        yield Finding("warning", where, text, len(repeated))


def _by_reason(refused: Sequence[Refused]) -> dict[str, list[Refused]]:
    groups: dict[str, list[Refused]] = {}
    for one in refused:
        groups.setdefault(one.reason, []).append(one)
    return groups
