"""Sample answers to the training questions and pair the better with the worse, for DPO.

Both answers of a pair are the model's own, sampled two at a time (an answer pair). If answers are
either right or wrong, the preference term then starts with the gradient of the expected score, up
to a factor: a question weighs by how often one of two answers is right and the other wrong, and
the answers that become more or less likely are those the model would give.

Two other kinds of pairs were tried and are worse. The most likely answer as the rejected one errs
in one direction only: the model learns to answer differently, also where it was right. The labels'
own words as the chosen answer pull toward words, not toward hits: a label names the first frame
that shows an object, the score accepts all of them. On the demo's pond, from runs of 150 steps with
F1 0.75 and 0.73 (two seeds), pairs of the first kind led to 0.56 and 0.58, of the second to 0.67
and 0.67, and these to 0.79 and 0.73 (`tests/benchmarks/preference.py`).

So nothing is learned about a question that the model never answers well; that takes supervised
training. Answers come from the same function as in evaluation (`evaluation.generation`), on the
prompts of training, and are stored as text, tokenized like every other message.

Limitations: the log-probabilities of the answers are computed later, under the precision of
training (`molmo_tune.training.preference.reference_log_probs`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from molmo_tune.encoding.items import (
    Item,
    MediaLimits,
    Refused,
    num_branch_tokens,
    num_vision_tokens,
    special_token_in,
)
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sampler import ItemSampler
from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import EncodedQuestion, question_batches
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.evaluation.rewards import reward
from molmo_tune.model.molmo import Molmo
from molmo_tune.preference.pairs import Mined, Pair, SampledAnswer, Unused, better_and_worse

AnswerPair = tuple[SampledAnswer, SampledAnswer]


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """How to sample and compare answers; see `PreferenceSection` and `EvalSection`."""

    min_f1_gap: float
    pairs_per_question: int
    max_tokens: int
    max_new_tokens: int
    batch_size: int
    seed: int
    max_questions: int | None = None


@dataclass(slots=True)
class _Tally:
    """What was found so far; every count is in answer pairs."""

    pairs_per_question: int
    pairs: list[Pair] = field(default_factory=list)
    unused: Counter[Unused] = field(default_factory=Counter)
    unreadable: list[Refused] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def skip(self, item: Item, reason: Unused) -> None:
        self.unused[reason] += len(item.conversations) * self.pairs_per_question

    def skip_unreadable(self, item: Item, error: UserError) -> None:
        path = str(item.sample.media.paths[0])
        self.unreadable.append(Refused(item.sample.id, "", str(error), bad_medium=path))
        self.skip(item, "medium does not open")

    def mined(self, items: Sequence[Item]) -> Mined:
        total = self.pairs_per_question * sum(len(item.conversations) for item in items)
        self.unused["not asked"] = total - len(self.pairs) - self.unused.total()
        mean = sum(self.scores) / len(self.scores) if self.scores else None
        return Mined.of(self.pairs, self.unused, mean)


def mine(
    model: Molmo,
    processor: Processor,
    items: Sequence[Item],
    limits: MediaLimits,
    settings: MiningSettings,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[Mined, list[Refused]]:
    """Make pairs of a model's answers to the questions of items.

    Args:
        model: `Molmo2ForConditionalGeneration` with adapters inside; its mode is restored.
        processor: of its checkpoint.
        items: the training items.
        limits: caps on media.
        settings: the seed fixes the answers and leaves PyTorch's generator unchanged.
        on_progress: called with the number of questions answered since the last call.

    Returns:
        The pairs with the counts of what gave none, and the items whose media do not open.
    """
    tally = _Tally(settings.pairs_per_question)
    numbers = _scored_items(items, tally, settings.seed)
    scored = [items[number] for number in numbers]
    batches = question_batches(
        scored,
        processor,
        limits,
        settings.batch_size,
        settings.max_questions,
        tally.skip_unreadable,
    )
    with _sampling_mode(model, settings.seed):
        for batch in batches:
            for asked, answers in _sample_pairs(model, processor, batch, scored, settings):
                item, number = scored[asked.item], numbers[asked.item]
                tally.scores += [answer.f1 for answer in answers]
                found = _compare(item, asked.question, answers, processor, limits, settings)
                if isinstance(found, str):
                    tally.unused[found] += 1
                else:
                    tally.pairs.append(_pair(item, number, asked.question, *found))
            on_progress(len(batch))
    return tally.mined(items), tally.unreadable


@contextmanager
def _sampling_mode(model: Molmo, seed: int) -> Iterator[None]:
    """Set evaluation mode and the seed during a ``with``, and restore both."""
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        model.train(was_training)


def _scored_items(items: Sequence[Item], tally: _Tally, seed: int) -> list[int]:
    """Return the numbers of the items whose answers have a score, shuffled; tally the others.

    Items without media are skipped, too: in their trees, positions differ from those of separate
    sequences (`token_stream`).
    """
    numbers = []
    order = ItemSampler(len(items), seed=seed)
    for number in map(order.item_at, range(len(items))):
        item = items[number]
        first = item.conversations[0]
        if not item.sample.media.paths:
            tally.skip(item, "no medium")
        elif reward(item, first, first.answer) is None:  # depends only on the item's task
            tally.skip(item, "not scored")
        else:
            numbers.append(number)
    return numbers


def _sample_pairs(
    model: Molmo,
    processor: Processor,
    batch: Sequence[EncodedQuestion],
    items: Sequence[Item],
    settings: MiningSettings,
) -> Iterator[tuple[EncodedQuestion, AnswerPair]]:
    """Yield pairs of scored answers to the questions of a batch."""

    def sample() -> list[SampledAnswer]:
        prompts, length = [asked.prompt for asked in batch], settings.max_new_tokens
        answers = generate_answers(
            model, processor, prompts, max_new_tokens=length, is_sampled=True
        )
        return [
            SampledAnswer(
                one.text, _f1(items[asked.item], asked.question, one.text), one.is_truncated
            )
            for asked, one in zip(batch, answers, strict=True)
        ]

    for _ in range(settings.pairs_per_question):
        yield from zip(batch, zip(sample(), sample(), strict=True), strict=True)


def _f1(item: Item, question: int, text: str) -> float:
    score = reward(item, item.conversations[question], text)
    if score is None:
        raise ValueError(f"{item.sample.id}: a question of a scored task has no score")
    return score


def _compare(
    item: Item,
    question: int,
    answers: AnswerPair,
    processor: Processor,
    limits: MediaLimits,
    settings: MiningSettings,
) -> Unused | AnswerPair:
    """Return the chosen and the rejected answer, or why they do not make a pair."""
    found = better_and_worse(*answers, min_f1_gap=settings.min_f1_gap)
    if isinstance(found, str):
        return found
    texts = [answer.text for answer in found]
    if special_token_in(texts, processor):
        return "special token"
    if num_pair_tokens(item, question, texts, processor, limits) > settings.max_tokens:
        return "too long"
    return found


def num_pair_tokens(
    item: Item, question: int, texts: Sequence[str], processor: Processor, limits: MediaLimits
) -> int:
    """Return the tokens of a sequence with an item's media and these answers to one question."""
    asked = item.conversations[question].question
    answers = sum(num_branch_tokens((asked, text), processor) for text in texts)
    return 1 + num_vision_tokens(item, processor, limits) + answers


def _pair(
    item: Item, number: int, question: int, chosen: SampledAnswer, rejected: SampledAnswer
) -> Pair:
    asked = item.conversations[question].question
    texts = (chosen.text, rejected.text)
    return Pair(number, question, asked, *texts, chosen.f1, rejected.f1)
