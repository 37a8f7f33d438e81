"""Questions about spans of a video: when does it happen, and what happens then.

`event_times` asks once per label and answers with all its spans (`molmo_tune.grounding.spans`);
`event_captions` gives a span in the question and answers with its label. A span counts when a
sampled moment lies in it; what goes on after the last moment is cut off there. Times are spelled
with tenths of a second, so what is shorter than that cannot be written.
"""

from __future__ import annotations

from molmo_tune.grounding.spans import format_spans
from molmo_tune.grounding.times import format_time, written_time
from molmo_tune.labels.sample import Sample, Span
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.chat import with_style_prefix
from molmo_tune.templates.conversations import Asked, Conversation, Skipped, Subject
from molmo_tune.templates.exhaustive import absent_labels
from molmo_tune.templates.visible import visible_span
from molmo_tune.templates.wording import draw

TIMES_STYLE = "video_short_answer"  # that of moment retrieval in the training mixture
CAPTION_STYLE = "video_clip_caption_start_end_in_seconds"


def event_times(subject: Subject) -> Asked:
    """One conversation per label of a video that happens at some time."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for label in subject.sample.labels(Span):
        spans, unwritten = written_spans(subject.sample, label, subject.clip)
        skipped += unwritten
        if spans:
            conversations.append(_about_label(subject, label, format_spans(spans)))
    for label in absent_labels(subject):
        conversations.append(_about_label(subject, label, format_spans([])))
    return conversations, skipped


def event_captions(subject: Subject) -> Asked:
    """One conversation per span of a video."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for label in subject.sample.labels(Span):
        spans, unwritten = written_spans(subject.sample, label, subject.clip)
        skipped += unwritten
        for start_s, end_s in spans:
            times = {"start": format_time(start_s), "end": format_time(end_s)}
            wording = draw(subject.template.questions, subject.key(label, start_s, end_s))
            question = with_style_prefix(CAPTION_STYLE, subject.say(wording, **times))
            conversations.append(Conversation(subject.sample.id, label, question, label))
    return conversations, skipped


def written_spans(
    sample: Sample, label: str, sampled: SampledTimes
) -> tuple[list[tuple[float, float]], list[Skipped]]:
    """The spans of a label that can be asked about, as answers spell them, and the others."""
    spans: list[tuple[float, float]] = []
    skipped: list[Skipped] = []
    for note in sample.annotations:
        if not isinstance(note, Span) or note.label != label:
            continue
        seen = visible_span(note, sampled)
        start_s, end_s = map(written_time, seen or (0.0, 0.0))
        if start_s < end_s:
            spans.append((start_s, end_s))
        else:
            reason = "no sampled frame shows it" if seen is None else "it takes no time"
            skipped.append(Skipped(f"{label}, from {note.start_s:g} s", reason))
    return sorted(spans), skipped


def _about_label(subject: Subject, label: str, answer: str) -> Conversation:
    wording = draw(subject.template.questions, subject.key(label))
    style = subject.template.style or TIMES_STYLE
    question = with_style_prefix(style, subject.say(wording, label=label))
    return Conversation(subject.sample.id, label, question, answer)
