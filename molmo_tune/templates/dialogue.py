"""Questions and answers written in the labels: dialogues, multiple choice, captions.

A `Dialogue` belongs to exactly one of three tasks: with options it is a multiple-choice question,
without a question it is a caption, otherwise it is a dialogue. Options get letters as in training,
``A. red``, one per line. Only templates of the same style ask for a caption that has a style
(``short_caption``).
"""

from __future__ import annotations

from molmo_tune.grounding.answers import format_options, read_choice
from molmo_tune.labels.sample import Annotation, Dialogue
from molmo_tune.templates.chat import with_style_prefix
from molmo_tune.templates.conversations import Conversation, Questions, Skipped, Subject
from molmo_tune.templates.wording import draw

MAX_SHOWN = 40
UNSTYLED = "user_qa"  # a dialogue's style when the labels name none


def dialogues(subject: Subject) -> Questions:
    """Return one conversation per dialogue that belongs to the template's task."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for note in subject.sample.annotations:
        if not isinstance(note, Dialogue) or task_of(note) != subject.template.task:
            continue
        problem = _problem(subject, note)
        if problem is None:
            conversations.append(_conversation(subject, note))
        else:
            skipped.append(Skipped(shown_name(note), problem))
    return conversations, skipped


def task_of(note: Dialogue) -> str:
    """Return the task that a dialogue belongs to."""
    if note.options:
        return "multiple_choice"
    return "dialogue" if note.question.strip() else "captions"


def shown_name(note: Annotation) -> str:
    """Return the name of an annotation in reports: its label, or the start of its text."""
    if not isinstance(note, Dialogue):
        return note.label
    text = " ".join((note.question or note.answer).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _problem(subject: Subject, note: Dialogue) -> str | None:
    template, task = subject.template, subject.template.task
    if task == "captions" and note.style not in (UNSTYLED, template.style):
        return f"its style is {note.style}, the template's is {template.style}"
    if task == "multiple_choice" and read_choice(note.answer, note.options) is None:
        return "its answer matches no option"
    return None if note.answer.strip() else "its answer is empty"


def _conversation(subject: Subject, note: Dialogue) -> Conversation:
    template = subject.template
    text = note.question or note.answer
    wording = draw(template.questions, subject.key(text))
    variables = {"question": note.question, "options": "\n".join(format_options(note.options))}
    question = with_style_prefix(template.style or note.style, subject.fill(wording, **variables))
    answer = _choice(subject, note) if note.options else note.answer
    return Conversation(subject.sample.id, "", question, answer, options=note.options)


def _choice(subject: Subject, note: Dialogue) -> str:
    """Return the correct option in the form that the template sets."""
    index = read_choice(note.answer, note.options)
    assert index is not None
    option = format_options(note.options)[index]
    text = note.options[index]
    return {"option": option, "letter": option[0], "text": text}[subject.template.choice]
