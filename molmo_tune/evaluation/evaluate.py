"""Ask every question of some items, score the answers, and sum up.

Small user sets are noisy, so F1 comes with a bootstrap 95 % interval, and every single answer is
kept beside its truth for a person to read. Means are over the answers that have a score; how many
have none (captions) is said beside them, and when none has one, F1 is NaN, in JSON null. A medium
that does not open costs its own questions, not the evaluation: it is left out, with the reason.
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

_NO_MEAN = Mean(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, slots=True)
class Record:
    """One question with its truth, the model's answer and the score."""

    sample_id: str
    label: str
    question: str
    truth: str
    said: str
    is_truncated: bool
    score: Score


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All records of one evaluation, in the order of the items.

    ``skipped``: why a sample was not asked about, a line each.
    """

    records: tuple[Record, ...]
    skipped: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Means with 95 % intervals, the share of cut answers, and the same per label and task.

        Keys: ``questions``, ``f1`` with ``f1_low`` and ``f1_high``, ``precision``, ``recall``,
        ``truncated_fraction``; ``unscored`` where there are answers without a score; ``skipped``
        where samples were; and what tasks add (``hota``, ``count_accuracy``, ``span_iou``, …).
        """
        skipped = {"skipped": len(self.skipped)} if self.skipped else {}
        return {
            **_summary(self.records),
            **skipped,
            "labels": _grouped(self.records, lambda record: record.label),
            "tasks": _grouped(self.records, lambda record: record.score.task),
        }

    def to_json(self) -> dict[str, Any]:
        """Summary, records and what was left out as plain types; what has no score is None."""
        records = [asdict(record) for record in self.records]
        return {
            "summary": _without_nan(self.summary()),
            "records": _without_nan(records),
            "skipped": list(self.skipped),
        }


class Asked(NamedTuple):
    """A question on its way to the model: numbers of the item and of its conversation."""

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
    """Greedy answers to all questions of the items, scored.

    Args:
        model: `Molmo2ForConditionalGeneration`, adapters included; its mode is restored.
        processor: of its checkpoint.
        items: what to ask about, each medium opened once.
        limits: the same caps as in training.
        max_new_tokens: an answer is cut there and marked.
        batch_size: questions answered together.
        max_questions: stop after so many.
        on_progress: told the number of questions answered since the last call.

    Raises:
        UserError: there is no question, or no medium opens.
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
            prompts = [asked.prompt for asked in batch]
            answers = generate_answers(model, processor, prompts, max_new_tokens=max_new_tokens)
            records += [
                _record(items[asked.item], asked.question, answer)
                for asked, answer in zip(batch, answers, strict=True)
            ]
            on_progress(len(batch))
    finally:
        model.train(was_training)
    if not records:
        found = f"none of {len(skipped)} media opens" if skipped else "no question"
        first = f"; the first: {skipped[0]}" if skipped else ""
        fix = "look at the data with molmo-tune check --media"
        raise UserError("validation data", found + first, "something to ask about", fix)
    return Evaluation(tuple(records), tuple(skipped))


def num_questions(items: Sequence[Item], max_questions: int | None = None) -> int:
    """Questions that `evaluate` will ask."""
    total = sum(len(item.conversations) for item in items)
    return total if max_questions is None else min(total, max_questions)


def question_batches(
    items: Sequence[Item],
    processor: Processor,
    limits: MediaLimits,
    batch_size: int,
    max_questions: int | None,
    on_fault: Callable[[Item, UserError], None],
) -> Iterator[list[Asked]]:
    """Prompts of all questions in order, so many together; each medium is opened once.

    Args:
        items: what to ask about.
        processor: of the checkpoint.
        limits: caps on media.
        batch_size: questions together; the last batch may be smaller.
        max_questions: stop after so many.
        on_fault: told of an item whose media do not open, which is then passed over.
    """
    left = num_questions(items, max_questions)
    batch: list[Asked] = []
    for number, item in enumerate(items):
        if left <= 0:
            break
        try:
            prompts = encode_questions(item, processor, limits)
        except UserError as error:
            on_fault(item, error)
            continue
        for place, prompt in list(enumerate(prompts))[:left]:
            batch.append(Asked(number, place, prompt))
            left -= 1
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
