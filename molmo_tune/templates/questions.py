"""All conversations about a sample by a template, and everything that they skip.

This is the only entry point to the families of tasks. It checks that a template fits the media,
selects the annotations that its task covers, and reports the others: a file with tracks and
captions needs one data source with a tracking template and one with a caption template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from molmo_tune.errors import UserError
from molmo_tune.labels.sample import Dialogue, Instance, MediaKind, Sample, Span, Track
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.conversations import Questions, SizeWH, Skipped, Subject
from molmo_tune.templates.dialogue import dialogues, shown_name, task_of
from molmo_tune.templates.events import event_captions, event_times
from molmo_tune.templates.pointing import image_pointing, video_pointing
from molmo_tune.templates.template import Task, Template
from molmo_tune.templates.tracking import single_point_tracking, tracking, tracking_start_end

AnyKind = type[Track] | type[Instance] | type[Span] | type[Dialogue]


@dataclass(frozen=True, slots=True)
class _Family:
    """A task: the function that makes its questions, its annotations, their name, its media."""

    ask: Callable[[Subject], Questions]
    covers: AnyKind
    name: str
    media: tuple[MediaKind, ...]


_FAMILIES: dict[Task, _Family] = {
    "image_pointing": _Family(image_pointing, Instance, "objects of images", ("image",)),
    "video_pointing": _Family(video_pointing, Track, "tracks", ("video",)),
    "tracking": _Family(tracking, Track, "tracks", ("video",)),
    "tracking_start_end": _Family(tracking_start_end, Track, "tracks", ("video",)),
    "single_point_tracking": _Family(single_point_tracking, Track, "tracks", ("video",)),
    "event_times": _Family(event_times, Span, "events", ("video",)),
    "event_captions": _Family(event_captions, Span, "events", ("video",)),
    "captions": _Family(dialogues, Dialogue, "captions", ("image", "video")),
    "dialogue": _Family(dialogues, Dialogue, "open questions", ("image", "video", "text")),
    "multiple_choice": _Family(
        dialogues, Dialogue, "questions with options", ("image", "video", "text")
    ),
}


def ask(
    sample: Sample,
    template: Template,
    sampled: SampledTimes | None,
    sizes_wh: Sequence[SizeWH],
    seed: int,
) -> Questions:
    """Return all conversations about a sample, and the annotations that they skip.

    Args:
        sample: a sample with all its annotations.
        template: phrasings; its task determines which annotations get questions.
        sampled: what the model sees of a video.
        sizes_wh: sizes of the images in pixels, in order.
        seed: seed of all random choices.

    Raises:
        UserError: the template is for another kind of media.
    """
    family = _FAMILIES[template.task]
    _check_media(sample, template, family)
    subject = Subject(sample, template, seed, sampled, tuple(sizes_wh))
    conversations, skipped = family.ask(subject)
    return conversations, [*skipped, *_not_covered(subject, family)]


def _check_media(sample: Sample, template: Template, family: _Family) -> None:
    media = family.media
    if template.task == "captions":
        media = ("video",) if template.style.startswith("video_") else ("image",)
    if sample.media.kind not in media:
        raise UserError(
            sample.id,
            f"{sample.media.kind} labels with a template for {template.task!r}"
            + (f" of style {template.style!r}" if template.style else ""),
            f"media of kind {' or '.join(media)}",
            "change data[].template",
        )


def _not_covered(subject: Subject, family: _Family) -> list[Skipped]:
    """Report labels (and texts) of a kind that the task does not cover."""
    names = dict.fromkeys(
        shown_name(note)
        for note in subject.sample.annotations
        if not isinstance(note, family.covers)
        or (isinstance(note, Dialogue) and task_of(note) != subject.template.task)
    )
    reason = f"task {subject.template.task} covers only {family.name}"
    return [Skipped(name, reason) for name in names]
