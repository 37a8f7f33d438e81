"""What questions are made from and what they become: `Subject`, `Conversation`, `Skipped`.

A conversation also keeps what its question fixed and its score must know (a rate, a starting point,
some of the images, the options). Nothing that the labels say disappears: a label that is not asked,
and an object that an answer lacks, is a `Skipped` with the reason.

Who makes conversations: one module per family of tasks beside this one, called by
`molmo_tune.templates.questions`.
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
        sample_id: of the sample.
        label: what is asked about; empty for texts that the labels spell out.
        question: with the tag of its style in front.
        answer: as the model is to write it.
        fps: rate asked for, positions per second (tracking).
        start: the point that the question gives (single-point tracking).
        image_numbers: images asked about, from 1 (images).
        options: in the order of their letters (multiple choice).
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
        """Question and answer, as the encoder takes them."""
        return self.question, self.answer


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in the labels that no conversation speaks of, and why."""

    label: str
    reason: str


Asked = tuple[list[Conversation], list[Skipped]]
"""What a family makes of a subject."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A sample with what the model sees of it, and the words to ask about it.

    ``sampled`` is set for videos, ``sizes_wh`` (one per image) for images.
    """

    sample: Sample
    template: Template
    seed: int
    sampled: SampledTimes | None = None
    sizes_wh: tuple[SizeWH, ...] = ()

    @property
    def clip(self) -> SampledTimes:
        """What is seen of a video.

        Raises:
            ValueError: the sample is no video.
        """
        if self.sampled is None:
            raise ValueError(f"{self.sample.id} is no video")
        return self.sampled

    def key(self, *about: object) -> str:
        """What everything drawn for one question is drawn from."""
        return ":".join(map(str, (self.seed, self.sample.id, *about)))

    def say(self, wording: str, **variables: object) -> str:
        """A wording filled in."""
        return render(wording, variables, where=self.sample.id)

    def name(self, label: str) -> str:
        """A label as answers write it."""
        return self.say(self.template.answer_label, label=label)
