"""Which labels may be counted, and which may be said to be absent: the one place for both rules.

Most label files say what is there and nothing about what is not. A label becomes a number, or
"there are none", only when the sample says that every visible object of it was annotated
(`Sample.exhaustive_labels`). Counting the others needs ``assume_exhaustive`` in the template;
nothing can make an absent label of them.

Spelling counts against us both times: a label is no proof of its own absence because it is written
"Cat" here and "cat" there.
"""

from __future__ import annotations

import random

from molmo_tune.labels.sample import Dialogue
from molmo_tune.templates.conversations import Subject

NOT_EXHAUSTIVE = (
    "not among the sample's exhaustive_labels, so a count could be wrong "
    "(unless the template says assume_exhaustive)"
)
SPELT_TWICE = "the sample spells this label in several ways, so a count could be wrong"
NOT_ALL_SHOWN = "some of its objects are not to be seen, so a count would be wrong"


def count_fault(subject: Subject, label: str, *, num_hidden: int) -> str | None:
    """Why no number may be stated for a label; None when one may, or when none is stated.

    Args:
        subject: whose labels and template.
        label: one of the sample's.
        num_hidden: labeled objects that the model is not shown.
    """
    sample, template = subject.sample, subject.template
    if not template.counts:
        return None
    if not template.assume_exhaustive and label not in sample.exhaustive_labels:
        return NOT_EXHAUSTIVE
    if sum(_plain(other) == _plain(label) for other in sample.labels()) > 1:
        return SPELT_TWICE
    return NOT_ALL_SHOWN if num_hidden else None


def absent_labels(subject: Subject) -> list[str]:
    """Exhaustive labels that nothing in the sample has, at most ``ask_absent`` of them."""
    sample = subject.sample
    present = {_plain(note.label) for note in sample.annotations if not isinstance(note, Dialogue)}
    exhaustive = {_plain(name): name for name in sample.exhaustive_labels}
    absent = sorted(name for plain, name in exhaustive.items() if plain and plain not in present)
    rng = random.Random(subject.key("absent labels"))
    return rng.sample(absent, min(subject.template.ask_absent, len(absent)))


def _plain(label: str) -> str:
    return " ".join(label.split()).casefold()
