"""All checks of the data of a recipe; labels are read and items planned once.

Only a few frames and images are decoded, for `leaks`, and no model is loaded. This module reports
unreadable sources, dropped annotations and skipped questions; the other modules do the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from molmo_tune.checks.answers import check_answers
from molmo_tune.checks.balance import check_balance, check_label_overlap
from molmo_tune.checks.budget import check_budget
from molmo_tune.checks.finding import Finding, examples, worst_first
from molmo_tune.checks.frames import check_frames
from molmo_tune.checks.leaks import check_leaks
from molmo_tune.encoding.items import Refused
from molmo_tune.encoding.sources import SourceData, read_source
from molmo_tune.errors import UserError
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.sections import DataSource, Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.units import count


def check_recipe(recipe: Recipe, *, all_media: bool = False) -> list[Finding]:
    """Return all findings about the data of a recipe, worst first.

    Args:
        recipe: with training and validation data.
        all_media: compare all media of both splits, not a few hundred.
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
            findings += _check_source(where, source, data, recipe.seed)
        findings += _repeated_ids(f"data.{split}", read[split])
    findings += _check_splits(recipe, read["train"], read["val"], all_media)
    findings += _check_preference(recipe)
    findings += check_budget(recipe, read["train"], processor)
    return worst_first(findings)


def _check_source(where: str, source: DataSource, data: SourceData, seed: int) -> Iterator[Finding]:
    report, items = data.report, data.plan.items
    if report.num_dropped:
        text = f"dropped {count(report.num_dropped, 'annotation')}: {examples(report.dropped)}"
        yield Finding("warning", where, text, report.num_dropped)
    for reason in (*report.corrected, *report.notes):
        yield Finding("warning", where, str(reason))
    for why, refused in _by_reason(data.plan.refused).items():
        names = [
            f"{one.sample_id} ({one.label})" if one.label else one.sample_id for one in refused
        ]
        text = f"skipped {len(refused)}: {why}: {examples(names)}"
        yield Finding("warning", where, text, len(refused))
    yield Finding(
        "note",
        where,
        f"{source.path}: {count(len(data.samples), 'sample')}, "
        f"{count(data.plan.num_conversations, 'question')}, "
        f"{count(sum(item.num_tokens for item in items), 'token')}",
    )
    yield from check_frames(where, items)
    yield from check_answers(where, items, seed)
    yield from check_balance(where, items)


def _check_splits(
    recipe: Recipe, train: Sequence[SourceData], val: Sequence[SourceData], all_media: bool
) -> Iterator[Finding]:
    if not recipe.data.val:
        text = "no validation data, so improvement cannot be measured"
        yield Finding("warning", "data.val", text)
    if train and val:
        yield from check_leaks(train, val, all_media=all_media)
        yield from check_label_overlap(train, val)


def _check_preference(recipe: Recipe) -> Iterator[Finding]:
    """Check that the run to continue from exists; training checks its contents."""
    if recipe.preference is None:
        return
    try:
        RunFolder(recipe.preference.from_run).require_trained()
    except UserError as error:
        yield Finding("error", "preference.from_run", str(error))


def _repeated_ids(where: str, read: Sequence[SourceData]) -> Iterator[Finding]:
    """Yield a warning about repeated ids, by which reports and predictions name samples."""
    distinct = {(s.id, s.media.paths) for data in read for s in data.samples}
    ids = Counter(name for name, _ in distinct)
    repeated = [name for name, times in ids.items() if times > 1]
    if repeated:
        text = f"{count(len(repeated), 'id')} used for several samples: {examples(repeated)}"
        yield Finding("warning", where, text, len(repeated))


def _by_reason(refused: Sequence[Refused]) -> dict[str, list[Refused]]:
    groups: dict[str, list[Refused]] = {}
    for one in refused:
        groups.setdefault(one.reason, []).append(one)
    return groups
