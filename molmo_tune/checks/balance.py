"""What is asked how often, and whether both parts of the data ask for the same things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from molmo_tune.checks.finding import Finding, examples
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.sources import SourceData

RARE_SHARE = 0.1
"""A label with less than this share of the commonest one's questions is rare."""

LISTED = 8


def about_labels(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    """How often each label is asked for, and which are rare."""
    counts = _asked(items)
    if not counts:
        return
    told = ", ".join(f"{label} {n}" for label, n in counts.most_common(LISTED))
    more = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    yield Finding("note", where, f"questions by label: {told}{more}")
    common = max(counts.values())
    rare = [f"{label} ({n})" for label, n in counts.items() if n < RARE_SHARE * common]
    if rare:
        text = f"{len(rare)} labels are rare: {examples(rare)}; the commonest has {common}"
        yield Finding("warning", where, text, len(rare))


def unseen_labels(train: Sequence[SourceData], val: Sequence[SourceData]) -> Iterator[Finding]:
    """Labels that only one of the two parts asks for."""
    trained, held_out = (
        _asked([item for data in part for item in data.plan.items]) for part in (train, val)
    )
    never_trained = [label for label in held_out if label not in trained]
    never_scored = [label for label in trained if label not in held_out]
    if never_trained:
        text = f"{len(never_trained)} labels are never trained on: {examples(never_trained)}"
        yield Finding("warning", "data.val", text, len(never_trained))
    if never_scored:
        text = f"{len(never_scored)} trained labels are never scored: {examples(never_scored)}"
        yield Finding("note", "data.val", text, len(never_scored))


def _asked(items: Sequence[Item]) -> Counter[str]:
    return Counter(c.label for item in items for c in item.conversations if c.label)
