"""Questions about spans of a video: when something happens, and what happens then.

`event_times` asks once per label and answers with all its spans (`molmo_tune.grounding.spans`);
`event_captions` names a span in the question and answers with its label. A span counts if it
contains a sampled time; one that continues after the last sampled time ends there. Times have one
decimal, so a span that rounds to 0 s cannot be written.
"""

from __future__ import annotations

from molmo_tune.grounding.spans import format_spans
from molmo_tune.grounding.times import format_time, written_time
from molmo_tune.labels.sample import Sample, Span
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.chat import with_style_prefix
from molmo_tune.templates.conversations import Conversation, Questions, Skipped, Subject
from molmo_tune.templates.exhaustive import absent_labels
from molmo_tune.templates.visible import visible_span
from molmo_tune.templates.wording import draw

TIMES_STYLE = "video_short_answer"  # style of moment retrieval in the training mixture
CAPTION_STYLE = "video_clip_caption_start_end_in_seconds"


def event_times(subject: Subject) -> Questions:
    """Return one conversation per label that has spans in a video."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for label in subject.sample.labels(Span):
        spans, unwritable = written_spans(subject.sample, label, subject.clip)
        skipped += unwritable
        if spans:
            conversations.append(_about_label(subject, label, format_spans(spans)))
    for label in absent_labels(subject):
        conversations.append(_about_label(subject, label, format_spans([])))
    return conversations, skipped


def event_captions(subject: Subject) -> Questions:
    """Return one conversation per span of a video."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for label in subject.sample.labels(Span):
        spans, unwritable = written_spans(subject.sample, label, subject.clip)
        skipped += unwritable
        for start_s, end_s in spans:
            times = {"start": format_time(start_s), "end": format_time(end_s)}
            wording = draw(subject.template.questions, subject.key(label, start_s, end_s))
            question = with_style_prefix(CAPTION_STYLE, subject.fill(wording, **times))
            conversations.append(Conversation(subject.sample.id, label, question, label))
    return conversations, skipped


def written_spans(
    sample: Sample, label: str, sampled: SampledTimes
) -> tuple[list[tuple[float, float]], list[Skipped]]:
    """Return the spans of a label as answers spell them, and those that cannot be written."""
    spans: list[tuple[float, float]] = []
    skipped: list[Skipped] = []
    for note in sample.annotations:
        if not isinstance(note, Span) or note.label != label:
            continue
        shown = visible_span(note, sampled)
        start_s, end_s = map(written_time, shown or (0.0, 0.0))
        if start_s < end_s:
            spans.append((start_s, end_s))
        else:
            reason = "no sampled frame shows it" if shown is None else "rounds to 0 s"
            skipped.append(Skipped(f"{label}, from {note.start_s:g} s", reason))
    return sorted(spans), skipped


def _about_label(subject: Subject, label: str, answer: str) -> Conversation:
    wording = draw(subject.template.questions, subject.key(label))
    style = subject.template.style or TIMES_STYLE
    question = with_style_prefix(style, subject.fill(wording, label=label))
    return Conversation(subject.sample.id, label, question, answer)
