"""The number of questions per label, and labels of only one of training and validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from molmo_tune.checks.finding import Finding, examples
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.sources import SourceData
from molmo_tune.units import count

RARE_FRACTION = 0.1
"""A label is rare with less than this fraction of the most common label's questions."""

LISTED = 8


def check_balance(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    """Yield the number of questions per label, and a warning about rare labels."""
    counts = _questions_by_label(items)
    if not counts:
        return
    listed = ", ".join(f"{label} {n}" for label, n in counts.most_common(LISTED))
    more = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    yield Finding("note", where, f"questions by label: {listed}{more}")
    most = max(counts.values())
    rare = [f"{label} ({n})" for label, n in counts.items() if n < RARE_FRACTION * most]
    if rare:
        number = count(len(rare), "rare label")
        text = f"{number}: {examples(rare)}; the most common has {count(most, 'question')}"
        yield Finding("warning", where, text, len(rare))


def check_label_overlap(
    train: Sequence[SourceData], val: Sequence[SourceData]
) -> Iterator[Finding]:
    """Yield findings about labels with questions in only one of training and validation."""
    trained, held_out = (
        _questions_by_label([item for data in split for item in data.plan.items])
        for split in (train, val)
    )
    never_trained = [label for label in held_out if label not in trained]
    never_scored = [label for label in trained if label not in held_out]
    if never_trained:
        number = count(len(never_trained), "label")
        text = f"{number} only in data.val, never trained: {examples(never_trained)}"
        yield Finding("warning", "data.val", text, len(never_trained))
    if never_scored:
        number = count(len(never_scored), "label")
        text = f"{number} only in data.train, never scored: {examples(never_scored)}"
        yield Finding("note", "data.val", text, len(never_scored))


def _questions_by_label(items: Sequence[Item]) -> Counter[str]:
    return Counter(c.label for item in items for c in item.conversations if c.label)
