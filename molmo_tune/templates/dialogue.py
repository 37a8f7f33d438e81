"""Questions and answers that the labels spell out: dialogues, multiple choice, captions.

A `Dialogue` serves exactly one of the three tasks: with options it is a multiple-choice question,
without a question it is a caption, else it is a dialogue. Options are lettered as the model was
trained, ``A. red`` on lines of their own. A caption of a style of its own (``short_caption``) is
asked for by templates of that style only.
"""

from __future__ import annotations

from molmo_tune.grounding.answers import format_options, read_choice
from molmo_tune.labels.sample import Annotation, Dialogue
from molmo_tune.templates.chat import with_style_prefix
from molmo_tune.templates.conversations import Asked, Conversation, Skipped, Subject
from molmo_tune.templates.wording import draw

MAX_SHOWN = 40
UNSTYLED = "user_qa"  # a dialogue's style when the labels name none


def written(subject: Subject) -> Asked:
    """One conversation per dialogue that serves the template's task."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for note in subject.sample.annotations:
        if not isinstance(note, Dialogue) or task_of(note) != subject.template.task:
            continue
        fault = _fault(subject, note)
        if fault is None:
            conversations.append(_about(subject, note))
        else:
            skipped.append(Skipped(shown_name(note), fault))
    return conversations, skipped


def task_of(note: Dialogue) -> str:
    """The one task that a dialogue serves."""
    if note.options:
        return "multiple_choice"
    return "dialogue" if note.question.strip() else "captions"


def shown_name(note: Annotation) -> str:
    """What reports call an annotation: its label, or the beginning of its text."""
    if not isinstance(note, Dialogue):
        return note.label
    text = " ".join((note.question or note.answer).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _fault(subject: Subject, note: Dialogue) -> str | None:
    template, task = subject.template, subject.template.task
    if task == "captions" and note.style not in (UNSTYLED, template.style):
        return f"it is a {note.style}, and the template asks for a {template.style}"
    if task == "multiple_choice" and read_choice(note.answer, note.options) is None:
        return "its answer is none of its options"
    return None if note.answer.strip() else "its answer is empty"


def _about(subject: Subject, note: Dialogue) -> Conversation:
    template = subject.template
    about = note.question or note.answer
    wording = draw(template.questions, subject.key(about))
    variables = {"question": note.question, "options": "\n".join(format_options(note.options))}
    question = with_style_prefix(template.style or note.style, subject.say(wording, **variables))
    answer = _choice(subject, note) if note.options else note.answer
    return Conversation(subject.sample.id, "", question, answer, options=note.options)


def _choice(subject: Subject, note: Dialogue) -> str:
    """The right option as the template wants it said."""
    index = read_choice(note.answer, note.options)
    assert index is not None
    option = format_options(note.options)[index]
    text = note.options[index]
    return {"option": option, "letter": option[0], "text": text}[subject.template.choice]
