"""A sample, a template and what the model sees → all conversations, and all that is left out.

The one entrance to the families of tasks. Here it is decided whether a template fits the medium,
which annotations its task asks about, and that the others are reported: a file with tracks and
captions needs one data source with a tracking template and one with a caption template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from molmo_tune.errors import UserError
from molmo_tune.labels.sample import Dialogue, Instance, MediaKind, Sample, Span, Track
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.conversations import Asked, SizeWH, Skipped, Subject
from molmo_tune.templates.dialogue import shown_name, task_of, written
from molmo_tune.templates.events import event_captions, event_times
from molmo_tune.templates.pointing import image_pointing, video_pointing
from molmo_tune.templates.template import Task, Template
from molmo_tune.templates.tracking import single_point_tracking, tracking, tracking_start_end

AnyKind = type[Track] | type[Instance] | type[Span] | type[Dialogue]


@dataclass(frozen=True, slots=True)
class _Family:
    """Who asks for a task, about which annotations (and their name), on which media."""

    ask: Callable[[Subject], Asked]
    about: AnyKind
    called: str
    media: tuple[MediaKind, ...]


_FAMILIES: dict[Task, _Family] = {
    "image_pointing": _Family(image_pointing, Instance, "objects of images", ("image",)),
    "video_pointing": _Family(video_pointing, Track, "tracks", ("video",)),
    "tracking": _Family(tracking, Track, "tracks", ("video",)),
    "tracking_start_end": _Family(tracking_start_end, Track, "tracks", ("video",)),
    "single_point_tracking": _Family(single_point_tracking, Track, "tracks", ("video",)),
    "event_times": _Family(event_times, Span, "events", ("video",)),
    "event_captions": _Family(event_captions, Span, "events", ("video",)),
    "captions": _Family(written, Dialogue, "captions", ("image", "video")),
    "dialogue": _Family(written, Dialogue, "open questions", ("image", "video", "text")),
    "multiple_choice": _Family(
        written, Dialogue, "questions with options", ("image", "video", "text")
    ),
}


def ask(
    sample: Sample,
    template: Template,
    sampled: SampledTimes | None,
    sizes_wh: Sequence[SizeWH],
    seed: int,
) -> Asked:
    """All conversations of a sample.

    Args:
        sample: with all its annotations.
        template: its task decides which of them are asked about.
        sampled: what the model sees of a video.
        sizes_wh: of the images, in order.
        seed: of everything that is drawn.

    Raises:
        UserError: the template is for another kind of medium.
    """
    family = _FAMILIES[template.task]
    _check_medium(sample, template, family)
    subject = Subject(sample, template, seed, sampled, tuple(sizes_wh))
    conversations, skipped = family.ask(subject)
    return conversations, [*skipped, *_not_asked(subject, family)]


def _check_medium(sample: Sample, template: Template, family: _Family) -> None:
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


def _not_asked(subject: Subject, family: _Family) -> list[Skipped]:
    """Labels (and texts) of a kind that the task does not ask about."""
    names = dict.fromkeys(
        shown_name(note)
        for note in subject.sample.annotations
        if not isinstance(note, family.about)
        or (isinstance(note, Dialogue) and task_of(note) != subject.template.task)
    )
    reason = f"the task {subject.template.task} asks about {family.called} only"
    return [Skipped(name, reason) for name in names]
