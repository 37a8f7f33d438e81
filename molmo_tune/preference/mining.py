"""Draw answers to the training questions and pair the better with the worse: what DPO learns from.

Both answers of a pair are the model's own, sampled two at a time (an answer pair). Of answers that
are right or wrong the preference term then has, at the start, the gradient of the expected score,
up to a factor: a question weighs by how often one of two answers is right and the other wrong, and
what is pushed up and down is what the model would say.

Other pairs were tried and are worse for a reason. The likeliest answer is wrong in one direction
only: the model then learns to say something else, also where it was right. The labels' own words
as the better answer pull toward words, not toward hits: a label names the first frame that shows
an object, the score allows all of them. On the demo's pond, from runs of 150 steps with F1 0.75 and
0.73 (two seeds), pairs of the first kind took it to 0.56 and 0.58, of the second to 0.67 and 0.67,
and these to 0.79 and 0.73 (`tests/benchmarks/preference.py`).

So nothing is learned about a question to which the model never finds a good answer; for that there
is supervised training. Answers come from the function that evaluates (`evaluation.generation`), on
the prompts that training uses, and are kept as text, tokenized like every other message.

What it does not do: say how likely the answers are (`molmo_tune.training.reference_log_probs` asks
that under training's own precision).
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
from molmo_tune.evaluation.evaluate import Asked, question_batches
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.evaluation.rewards import reward
from molmo_tune.model.molmo import Molmo
from molmo_tune.preference.pairs import Mined, Pair, SampledAnswer, Unused, better_and_worse

AnswerPair = tuple[SampledAnswer, SampledAnswer]


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """How to ask and what is better than what; see `PreferenceSection` and `EvalSection`."""

    min_f1_gap: float
    pairs_per_question: int
    max_tokens: int
    max_new_tokens: int
    batch_size: int
    seed: int
    max_questions: int | None = None


@dataclass(slots=True)
class _Account:
    """What was found so far; everything is counted in answer pairs."""

    pairs_per_question: int
    pairs: list[Pair] = field(default_factory=list)
    unused: Counter[Unused] = field(default_factory=Counter)
    bad: list[Refused] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def passed_over(self, item: Item, reason: Unused) -> None:
        self.unused[reason] += len(item.conversations) * self.pairs_per_question

    def does_not_open(self, item: Item, error: UserError) -> None:
        path = str(item.sample.media.paths[0])
        self.bad.append(Refused(item.sample.id, "", str(error), bad_medium=path))
        self.passed_over(item, "medium does not open")

    def mined(self, items: Sequence[Item]) -> Mined:
        wanted = self.pairs_per_question * sum(len(item.conversations) for item in items)
        self.unused["not asked"] = wanted - len(self.pairs) - self.unused.total()
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
    """Pairs of a model's answers to the questions of some items.

    Args:
        model: `Molmo2ForConditionalGeneration`, adapters included; its mode is restored.
        processor: of its checkpoint.
        items: the training items.
        limits: caps on media.
        settings: see there; the seed fixes the answers, and leaves no trace in PyTorch's generator.
        on_progress: told the number of questions answered since the last call.

    Returns:
        The pairs with the count of what gave none, and the items whose media do not open.
    """
    account = _Account(settings.pairs_per_question)
    numbers = _scored_items(items, account, settings.seed)
    asked_items = [items[number] for number in numbers]
    batches = question_batches(
        asked_items,
        processor,
        limits,
        settings.batch_size,
        settings.max_questions,
        account.does_not_open,
    )
    with _answering(model, settings.seed):
        for batch in batches:
            for asked, couple in _drawn(model, processor, batch, asked_items, settings):
                item = asked_items[asked.item]
                account.scores += [drawn.f1 for drawn in couple]
                found = _judged(item, asked.question, couple, processor, limits, settings)
                if isinstance(found, str):
                    account.unused[found] += 1
                else:
                    account.pairs.append(_pair(item, numbers[asked.item], asked.question, *found))
            on_progress(len(batch))
    return account.mined(items), account.bad


@contextmanager
def _answering(model: Molmo, seed: int) -> Iterator[None]:
    """Evaluation mode and a seed, and afterwards both as they were."""
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        model.train(was_training)


def _scored_items(items: Sequence[Item], account: _Account, seed: int) -> list[int]:
    """Numbers of the items worth asking about, in drawn order; the others are counted.

    A tree without media is one that positions tell from separate sequences (`token_stream`).
    """
    numbers = []
    order = ItemSampler(len(items), seed=seed)
    for number in map(order.item_at, range(len(items))):
        item = items[number]
        first = item.conversations[0]
        if not item.sample.media.paths:
            account.passed_over(item, "no medium")
        elif reward(item, first, first.answer) is None:  # a matter of the item's task
            account.passed_over(item, "not scored")
        else:
            numbers.append(number)
    return numbers


def _drawn(
    model: Molmo,
    processor: Processor,
    batch: Sequence[Asked],
    items: Sequence[Item],
    settings: MiningSettings,
) -> Iterator[tuple[Asked, AnswerPair]]:
    """Couples of scored answers to the questions of a batch."""

    def answers() -> list[SampledAnswer]:
        prompts, length = [asked.prompt for asked in batch], settings.max_new_tokens
        said = generate_answers(model, processor, prompts, max_new_tokens=length, is_drawn=True)
        return [
            SampledAnswer(
                one.text, _f1(items[asked.item], asked.question, one.text), one.is_truncated
            )
            for asked, one in zip(batch, said, strict=True)
        ]

    for _ in range(settings.pairs_per_question):
        yield from zip(batch, zip(answers(), answers(), strict=True), strict=True)


def _f1(item: Item, question: int, text: str) -> float:
    score = reward(item, item.conversations[question], text)
    if score is None:
        raise ValueError(f"{item.sample.id}: a question of a scored task has no score")
    return score


def _judged(
    item: Item,
    question: int,
    couple: AnswerPair,
    processor: Processor,
    limits: MediaLimits,
    settings: MiningSettings,
) -> Unused | AnswerPair:
    """The better and the worse answer of an answer pair, or why it is no pair."""
    found = better_and_worse(*couple, min_f1_gap=settings.min_f1_gap)
    if isinstance(found, str):
        return found
    texts = [drawn.text for drawn in found]
    if special_token_in(texts, processor):
        return "special token"
    if num_pair_tokens(item, question, texts, processor, limits) > settings.max_tokens:
        return "too long"
    return found


def num_pair_tokens(
    item: Item, question: int, texts: Sequence[str], processor: Processor, limits: MediaLimits
) -> int:
    """Length of a sequence that holds a medium and these answers to one question about it."""
    asked = item.conversations[question].question
    answers = sum(num_branch_tokens((asked, text), processor) for text in texts)
    return 1 + num_vision_tokens(item, processor, limits) + answers


def _pair(
    item: Item, number: int, question: int, better: SampledAnswer, worse: SampledAnswer
) -> Pair:
    asked = item.conversations[question].question
    return Pair(number, question, asked, better.text, worse.text, better.f1, worse.f1)
