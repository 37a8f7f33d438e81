"""Input and output of question making: `Subject`, `Conversation` and `Skipped`.

A conversation also holds what scoring must know about its question: a rate, a starting point, some
of the images, the options. No annotation disappears silently: a label without a question, and an
object missing from an answer, becomes a `Skipped` with the reason.

`molmo_tune.templates.questions` makes conversations, with one module per family of tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

from molmo_tune.labels.sample import Sample
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.alignment import InitialPoint
from molmo_tune.templates.template import Template
from molmo_tune.templates.wording import render

SizeWH = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One question about a sample and its answer.

    Args:
        sample_id: id of the sample.
        label: label in question; empty for questions written in the labels.
        question: text of the question, after the tag of its style.
        answer: text that the model should write.
        fps: rate of the answer in positions per second (tracking).
        start: point given in the question (single-point tracking).
        image_numbers: images in question, from 1 (images).
        options: choices in the order of their letters (multiple choice).
    """

    sample_id: str
    label: str
    question: str
    answer: str
    fps: int = 0
    start: InitialPoint | None = None
    image_numbers: tuple[int, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[str, str]:
        """Question and answer, as the encoder reads them."""
        return self.question, self.answer


@dataclass(frozen=True, slots=True)
class Skipped:
    """An annotation that no conversation covers, and why."""

    label: str
    reason: str


Questions = tuple[list[Conversation], list[Skipped]]
"""Conversations about a subject, and the annotations that they skip."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A sample, what the model sees of it, and the template for questions about it.

    ``sampled`` is set for videos, ``sizes_wh`` (pixels, one per image) for images.
    """

    sample: Sample
    template: Template
    seed: int
    sampled: SampledTimes | None = None
    sizes_wh: tuple[SizeWH, ...] = ()

    @property
    def clip(self) -> SampledTimes:
        """What the model sees of a video.

        Raises:
            ValueError: the sample is not a video.
        """
        if self.sampled is None:
            raise ValueError(f"{self.sample.id} is not a video")
        return self.sampled

    def key(self, *about: object) -> str:
        """Return the random seed of one question."""
        return ":".join(map(str, (self.seed, self.sample.id, *about)))

    def fill(self, wording: str, **variables: object) -> str:
        """Return a phrasing with its variables filled in."""
        return render(wording, variables, where=self.sample.id)

    def name(self, label: str) -> str:
        """Return a label as answers spell it."""
        return self.fill(self.template.answer_label, label=label)
