"""What can be found out about a recipe's data without a model.

Findings are plain lines with a severity: an *error* will stop or spoil training, a *warning* should
be looked at, a *note* is a figure. Nothing is changed here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from molmo_tune.encoding.items import Item, Refused
from molmo_tune.encoding.sources import SourceData, measure_packing, read_source
from molmo_tune.errors import UserError
from molmo_tune.evaluation.scoring import score_answer
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.sections import DataSource, Recipe

Severity = Literal["error", "warning", "note"]
_ORDER: dict[str, int] = {"error": 0, "warning": 1, "note": 2}
RARE_SHARE = 0.1  # a label with less than this share of the commonest one's questions is rare


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check."""

    severity: Severity
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity:<8}{self.where}: {self.text}"


def check_recipe(recipe: Recipe) -> list[Finding]:
    """All findings about the recipe's data, worst first."""
    processor = load_processor(recipe.model.name)
    findings: list[Finding] = []
    read: dict[str, list[SourceData]] = {"train": [], "val": []}
    for split, sources in (("train", recipe.data.train), ("val", recipe.data.val)):
        for number, source in enumerate(sources):
            where = f"data.{split}.{number}"
            try:
                data = read_source(source, recipe, processor)
            except UserError as error:
                findings.append(Finding("error", where, str(error)))
                continue
            read[split].append(data)
            findings += _about_source(where, source, data)
    findings += _leaks(read["train"], read["val"])
    findings += _about_training(recipe, read["train"])
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def _about_source(where: str, source: DataSource, data: SourceData) -> Iterator[Finding]:
    if data.report.num_losses:
        first = "; ".join(map(str, data.report.losses[:3]))
        yield Finding("warning", where, f"{data.report.num_losses} annotations are lost: {first}")
    for finding in (*data.report.repaired, *data.report.notes):
        yield Finding("warning", where, str(finding))
    for reason, ones in _by_reason(data.plan.refused).items():
        examples = ", ".join(f"{one.sample_id} ({one.label})" for one in ones[:3])
        yield Finding("warning", where, f"{len(ones)} left out, {reason}: {examples}")
    yield from _unreadable_answers(where, data.plan.items)
    items = data.plan.items
    longest = max(item.num_tokens for item in items)
    yield Finding(
        "note",
        where,
        f"{source.path}: {len(data.samples)} samples, {data.plan.num_conversations} questions, "
        f"{sum(item.num_tokens for item in items)} tokens, the longest sequence {longest}",
    )
    counts = Counter(c.label for item in items for c in item.conversations if c.label)
    common = max(counts.values(), default=0)
    rare = [f"{label} ({n})" for label, n in counts.items() if n < RARE_SHARE * common]
    if rare:
        yield Finding(
            "warning", where, f"rare labels: {', '.join(rare)}; the commonest has {common}"
        )


def _unreadable_answers(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    """Answers that, read back, do not score full marks against their own labels."""
    bad = [
        f"{item.sample.id} ({c.label})"
        for item in items
        for c in item.conversations
        if score_answer(item, c, c.answer).f1 < 1 - 1e-6  # never true without a score
    ]
    if bad:
        yield Finding(
            "warning",
            where,
            f"{len(bad)} answers read back do not hit their own labels "
            f"(objects smaller than a thousandth of the frame?): {', '.join(bad[:3])}",
        )


def _leaks(train: Sequence[SourceData], val: Sequence[SourceData]) -> Iterator[Finding]:
    def media(data: Sequence[SourceData]) -> dict[str, str]:
        return {
            str(path.resolve()): sample.id
            for one in data
            for sample in one.samples
            for path in sample.media.paths
        }

    trained, held_out = media(train), media(val)
    shared = sorted(set(trained) & set(held_out))
    if shared:
        yield Finding(
            "error",
            "data.val",
            f"{len(shared)} media are also trained on, the first {shared[0]}: "
            "scores would mean nothing",
        )


def _about_training(recipe: Recipe, train: Sequence[SourceData]) -> Iterator[Finding]:
    num_items = sum(len(data.plan.items) for data in train)
    if not num_items:
        return
    per_step = recipe.trainer.batch_size * recipe.trainer.accumulate_grad_batches
    epochs = recipe.trainer.max_steps * per_step / num_items
    yield Finding(
        "note",
        "trainer",
        f"{num_items} sequences, {per_step} per step: an epoch is "
        f"{math.ceil(num_items / per_step)} steps, max_steps = {recipe.trainer.max_steps} "
        f"is {epochs:.1f} epochs",
    )
    figures = measure_packing([item for data in train for item in data.plan.items], recipe)
    if figures is not None:
        yield Finding(
            "note",
            "data.packing",
            f"{figures}; {per_step} packs per step: an epoch is about "
            f"{figures.packs_per_pass / per_step:.1f} steps",
        )


def _by_reason(refused: Sequence[Refused]) -> dict[str, list[Refused]]:
    groups: dict[str, list[Refused]] = {}
    for one in refused:
        groups.setdefault(one.reason, []).append(one)
    return groups
