"""Evaluation: answer every question of some items, score the answers and summarize.

Small datasets are noisy, so F1 has a bootstrap 95% interval, and every answer is recorded with its
ground truth. Means are over the scored answers, with the number of unscored ones (captions); if no
answer is scored, F1 is NaN (null in JSON). Media that do not open are skipped with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from molmo_tune.encoding.datasets import encode_questions
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import Item, MediaLimits
from molmo_tune.encoding.processor import Processor
from molmo_tune.errors import UserError
from molmo_tune.evaluation.generation import Answer, generate_answers
from molmo_tune.evaluation.scores import Score
from molmo_tune.evaluation.scoring import score_answer
from molmo_tune.grounding.pointing import Mean, mean_with_interval
from molmo_tune.model.molmo import Molmo
from molmo_tune.units import count

_NO_MEAN = Mean(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, slots=True)
class Record:
    """One question: its ground truth ``truth``, the predicted answer ``said``, and the score."""

    sample_id: str
    label: str
    question: str
    truth: str
    said: str
    is_truncated: bool
    score: Score


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The records of an evaluation, in the order of the items.

    ``skipped``: one line for each skipped media file, with the reason.
    """

    records: tuple[Record, ...]
    skipped: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return means over all questions, and the same per label and per task.

        Keys: ``questions``; ``f1`` with its 95% interval ``f1_low`` to ``f1_high``; ``precision``;
        ``recall``; ``truncated_fraction``; ``unscored`` and ``skipped``, if not 0; and metrics of
        the tasks (``hota``, ``count_accuracy``, ``span_iou``, …).
        """
        skipped = {"skipped": len(self.skipped)} if self.skipped else {}
        return {
            **_summary(self.records),
            **skipped,
            "labels": _grouped(self.records, lambda record: record.label),
            "tasks": _grouped(self.records, lambda record: record.score.task),
        }

    def to_json(self) -> dict[str, Any]:
        """Return summary, records and skipped media as plain types, with None for NaN."""
        records = [asdict(record) for record in self.records]
        return {
            "summary": _without_nan(self.summary()),
            "records": _without_nan(records),
            "skipped": list(self.skipped),
        }


class EncodedQuestion(NamedTuple):
    """An encoded question, with the indices of its item and of the conversation in it."""

    item: int
    question: int
    prompt: EncodedSample


def evaluate(
    model: Molmo,
    processor: Processor,
    items: Sequence[Item],
    limits: MediaLimits,
    *,
    max_new_tokens: int,
    batch_size: int,
    max_questions: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Answer all questions of the items greedily and score the answers.

    Args:
        model: `Molmo2ForConditionalGeneration` with adapters; its training mode is restored.
        processor: of its checkpoint.
        items: their media are opened once each.
        limits: of media, as in training.
        max_new_tokens: longer answers are truncated and marked.
        batch_size: questions per batch.
        max_questions: maximum number of questions.
        on_progress: called with the number of questions answered since the last call.

    Raises:
        UserError: there are no questions, or no media file opens.
    """
    was_training = model.training
    model.eval()
    records: list[Record] = []
    skipped: list[str] = []
    batches = question_batches(
        items,
        processor,
        limits,
        batch_size,
        max_questions,
        lambda _, error: skipped.append(str(error)),
    )
    try:
        for batch in batches:
            prompts = [encoded.prompt for encoded in batch]
            answers = generate_answers(model, processor, prompts, max_new_tokens=max_new_tokens)
            records += [
                _record(items[encoded.item], encoded.question, answer)
                for encoded, answer in zip(batch, answers, strict=True)
            ]
            on_progress(len(batch))
    finally:
        model.train(was_training)
    if not records:
        found = "no questions"
        if skipped:
            found = f"none of {count(len(skipped), 'media file')} opens, the first: {skipped[0]}"
        fix = "run molmo-tune check RECIPE --media"
        raise UserError("validation data", found, "at least one question", fix)
    return Evaluation(tuple(records), tuple(skipped))


def num_questions(items: Sequence[Item], max_questions: int | None = None) -> int:
    """Return the number of questions that `evaluate` answers."""
    total = sum(len(item.conversations) for item in items)
    return total if max_questions is None else min(total, max_questions)


def question_batches(
    items: Sequence[Item],
    processor: Processor,
    limits: MediaLimits,
    batch_size: int,
    max_questions: int | None,
    on_error: Callable[[Item, UserError], None],
) -> Iterator[list[EncodedQuestion]]:
    """Yield batches of encoded questions, in order; each media file is opened once.

    Args:
        items: with their questions.
        processor: of the checkpoint.
        limits: of media.
        batch_size: questions per batch; the last one can be smaller.
        max_questions: maximum number of questions.
        on_error: called for an item whose media do not open; its questions are skipped.
    """
    remaining = num_questions(items, max_questions)
    batch: list[EncodedQuestion] = []
    for item_index, item in enumerate(items):
        if remaining <= 0:
            break
        try:
            prompts = encode_questions(item, processor, limits)
        except UserError as error:
            on_error(item, error)
            continue
        for question, prompt in list(enumerate(prompts))[:remaining]:
            batch.append(EncodedQuestion(item_index, question, prompt))
            remaining -= 1
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def _record(item: Item, question: int, answer: Answer) -> Record:
    conversation = item.conversations[question]
    return Record(
        item.sample.id,
        conversation.label,
        conversation.question,
        conversation.answer,
        answer.text,
        answer.is_truncated,
        score_answer(item, conversation, answer.text),
    )


def _grouped(
    records: Sequence[Record], group_of: Callable[[Record], str]
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(group_of(record), []).append(record)
    return {name: _summary(groups[name]) for name in sorted(groups)}


def _summary(records: Sequence[Record]) -> dict[str, Any]:
    scores = [record.score for record in records if record.score.is_scored]
    f1 = mean_with_interval([score.f1 for score in scores]) if scores else _NO_MEAN
    summary: dict[str, Any] = {
        "questions": len(records),
        "f1": f1.mean,
        "f1_low": f1.low,
        "f1_high": f1.high,
        "precision": _mean([score.precision for score in scores]),
        "recall": _mean([score.recall for score in scores]),
        "truncated_fraction": sum(record.is_truncated for record in records) / len(records),
    }
    if len(scores) < len(records):
        summary["unscored"] = len(records) - len(scores)
    names = dict.fromkeys(name for score in scores for name in score.more)
    return summary | {
        name: _mean([score.more[name] for score in scores if name in score.more]) for name in names
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
