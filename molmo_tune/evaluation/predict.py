"""Predictions: answers to questions about unlabeled images and videos.

Media are sampled, encoded and prompted by the functions of training, so a fine-tuned model gets the
inputs it was trained on. Answers are returned as generated text, as points in pixels and seconds,
and as `Sample`s, so that predictions can be corrected as labels and trained on.

Limitations: no scores, as there is no ground truth; questions are used as given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from molmo_tune.encoding.items import Item, MediaLimits, item_to_ask
from molmo_tune.encoding.media_inputs import vision_of
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sample_encoder import encode_prompt
from molmo_tune.encoding.vision_inputs import NO_VISION
from molmo_tune.errors import UserError
from molmo_tune.evaluation.answer_points import points_of
from molmo_tune.evaluation.generation import Answer, generate_answers
from molmo_tune.grounding.text import ParsedPoint, label_of_answer
from molmo_tune.labels.media_source import IMAGE_SUFFIXES
from molmo_tune.labels.sample import (
    Annotation,
    Dialogue,
    Instance,
    Media,
    MediaKind,
    Observation,
    Point,
    Sample,
    Track,
)
from molmo_tune.model.molmo import Molmo
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.template import Template, load_template


class PointRecord(TypedDict, total=False):
    """A predicted point: ``time_s`` in a video, or ``image``, the number of an image from 1."""

    id: str
    time_s: float
    image: int
    x_px: float
    y_px: float


class PredictionRecord(TypedDict):
    """A question about some media, and its answer."""

    media: list[str]
    question: str
    answer: str
    is_truncated: bool
    points: list[PointRecord]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Answers to all questions about one video or image (or several images together).

    Attributes:
        item: its conversations contain the questions and the answers.
        answers: the same answers, with whether they are truncated.
        patches: ``(C, P, D)`` input of the model, for drawing frames; empty for images.
    """

    item: Item
    answers: tuple[Answer, ...]
    patches: NDArray[np.float32]

    def to_json(self) -> list[PredictionRecord]:
        """Return a record per question: media, answer, and points in pixels and seconds."""
        media = [str(path) for path in self.item.sample.media.paths]
        return [
            {
                "media": media,
                "question": conversation.question,
                "answer": answer.text,
                "is_truncated": answer.is_truncated,
                "points": [self._record(point) for point in points_of(self.item, answer.text)],
            }
            for conversation, answer in zip(self.item.conversations, self.answers, strict=True)
        ]

    def _record(self, point: ParsedPoint) -> PointRecord:
        x, y = (round(value, 2) for value in point.xy_px)
        if self.item.sampled is not None:
            return {"id": point.id, "time_s": point.frame_id, "x_px": x, "y_px": y}
        return {"id": point.id, "image": int(point.frame_id), "x_px": x, "y_px": y}

    def to_sample(self) -> Sample:
        """Return the answers as labels: points as instances or tracks, other text as dialogues."""
        notes: list[Annotation] = []
        for number, answer in enumerate(self.answers, start=1):
            points = points_of(self.item, answer.text)
            question = self.item.conversations[number - 1].question
            label = label_of_answer(answer.text) or question
            if not points:
                notes.append(Dialogue(question, answer.text))
            elif self.item.sampled is not None:
                notes += _tracks(points, label, number)
            else:
                notes += [
                    Instance(f"{number}.{p.id}", label, Point(p.xy_px), int(p.frame_id) - 1)
                    for p in points
                ]
        return replace(self.item.sample, annotations=tuple(notes))


def predict(
    model: Molmo,
    processor: Processor,
    media: Sequence[Media],
    questions: Sequence[str],
    limits: MediaLimits,
    *,
    max_new_tokens: int,
    template: Template | None = None,
) -> Iterator[Prediction | UserError]:
    """Answer every question about all media greedily; each media file is opened once.

    Args:
        model: `Molmo2ForConditionalGeneration` in evaluation mode, with adapters.
        processor: of its checkpoint.
        media: images or videos.
        questions: as the user writes them, without style tags.
        limits: of media; for a fine-tuned model, those of training.
        max_new_tokens: longer answers are truncated and marked.
        template: of the run; the `fps` sampling rule uses its rate.

    Yields:
        The answers for each element of `media` once they are complete, or the error that kept it
        from opening.
    """
    template = template or load_template("dialogue")
    for number, one in enumerate(media):
        name = f"{number:04d}_{one.paths[0].stem}"
        try:
            item = item_to_ask(Sample(name, one, ()), template, limits)
            vision = vision_of(item, processor, limits)
        except UserError as error:
            yield error
            continue
        answers = []
        for question in questions:
            prompt = encode_prompt(processor, name, [question], vision)
            answers += generate_answers(model, processor, [prompt], max_new_tokens=max_new_tokens)
        conversations = tuple(
            Conversation(name, label_of_answer(answer.text), question, answer.text)
            for question, answer in zip(questions, answers, strict=True)
        )
        patches = vision.patches if item.sampled is not None else NO_VISION.patches
        yield Prediction(replace(item, conversations=conversations), tuple(answers), patches)


def media_of(paths: Sequence[Path], *, together: bool = False) -> list[Media]:
    """Return images (by file extension) and videos (everything else).

    Args:
        paths: of the files or frame folders.
        together: one element with all images, for questions about them together.

    Raises:
        UserError: `together` is set, but not all are images.
    """
    kinds = [_kind(path) for path in paths]
    if together and "video" in kinds:
        other = paths[kinds.index("video")]
        raise UserError(other, "not an image", "images with --together")
    if together:
        return [Media("image", tuple(paths))]
    return [Media(kind, (path,)) for kind, path in zip(kinds, paths, strict=True)]


def _kind(path: Path) -> MediaKind:
    return "image" if path.suffix.lower() in IMAGE_SUFFIXES else "video"


def _tracks(points: Sequence[ParsedPoint], label: str, number: int) -> list[Annotation]:
    seen: dict[str, list[Observation]] = {}
    for point in sorted(points, key=lambda point: point.frame_id):
        at = Observation(point.frame_id, -1, Point(point.xy_px))
        seen.setdefault(point.id, []).append(at)
    return [Track(f"{number}.{key}", label, tuple(moments)) for key, moments in seen.items()]
