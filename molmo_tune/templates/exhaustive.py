"""Which labels can be counted, and which can be called absent: the only place for both rules.

Most label files list what is present and nothing about what is absent. An answer states a number,
or "There are none.", only for labels whose visible objects the sample declares fully annotated
(`Sample.exhaustive_labels`). ``assume_exhaustive`` in the template allows counts of the others, but
nothing makes them absent.

Spelling variants block both: a sample with a "Cat" and a "cat" counts neither, and a "Cat" is
enough for "cat" not to be absent.
"""

from __future__ import annotations

import random

from molmo_tune.labels.sample import Dialogue
from molmo_tune.templates.conversations import Subject

NOT_EXHAUSTIVE = (
    "not in the sample's exhaustive_labels, so a count could be wrong "
    "(set assume_exhaustive in the template to count anyway)"
)
SEVERAL_SPELLINGS = "the sample spells this label in several ways, so a count could be wrong"
NOT_ALL_SHOWN = "some of its objects are not visible, so a count would be wrong"


def count_problem(subject: Subject, label: str, *, num_hidden: int) -> str | None:
    """Return why a label cannot be counted; None if it can, or if the answer has no number.

    Args:
        subject: sample and template.
        label: a label of the sample.
        num_hidden: number of labeled objects that the model does not see.
    """
    sample, template = subject.sample, subject.template
    if not template.counts:
        return None
    if not template.assume_exhaustive and label not in sample.exhaustive_labels:
        return NOT_EXHAUSTIVE
    if sum(_plain(other) == _plain(label) for other in sample.labels()) > 1:
        return SEVERAL_SPELLINGS
    return NOT_ALL_SHOWN if num_hidden else None


def absent_labels(subject: Subject) -> list[str]:
    """Return exhaustive labels that are absent from the sample, at most ``ask_absent`` of them."""
    sample = subject.sample
    present = {_plain(note.label) for note in sample.annotations if not isinstance(note, Dialogue)}
    exhaustive = {_plain(name): name for name in sample.exhaustive_labels}
    absent = sorted(name for plain, name in exhaustive.items() if plain and plain not in present)
    rng = random.Random(subject.key("absent labels"))
    return rng.sample(absent, min(subject.template.ask_absent, len(absent)))


def _plain(label: str) -> str:
    return " ".join(label.split()).casefold()
