"""Ask a model the training questions and keep the answers that are wrong: the worse half of pairs.

Answers are drawn, as the model would have them, and not the likeliest ones. Greedy answers are all
wrong in one direction: where the model is unsure it always says the same, so every pair says "less
of that", and what is learned is to say something else. Measured on the demo's pond: pairs of greedy
answers took F1 from 0.75 to 0.38, because frames that used to be named first were not named any
more. Of drawn answers to all questions a model that knows what it does not know has as many pairs
(a better than b) as (b better than a), and only what there is to learn is left.

They come from the function that evaluates (`evaluation.generation`), on the prompts that training
uses. A worse answer is kept as text and tokenised like every other message.

What it does not do: say how likely the answers are (`molmo_tune.training.preference` asks that
under training's own precision).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from molmo_tune.encoding.items import (
    Item,
    MediaLimits,
    Refused,
    num_branch_tokens,
    num_vision_tokens,
    special_token_in,
)
from molmo_tune.encoding.order import ItemOrder
from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import Asked, question_batches
from molmo_tune.evaluation.generation import Answer, generate_answers
from molmo_tune.evaluation.rewards import reward
from molmo_tune.preference.pairs import Mined, Pair, Unused, why_unused


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """How to ask and what counts as wrong; see `PreferenceSection` and `EvalSection`."""

    below_f1: float
    draws: int
    max_tokens: int
    max_new_tokens: int
    batch_size: int
    seed: int
    max_questions: int | None = None


@dataclass(slots=True)
class _Account:
    draws: int
    pairs: list[Pair] = field(default_factory=list)
    unused: Counter[Unused] = field(default_factory=Counter)
    bad: list[Refused] = field(default_factory=list)

    def does_not_open(self, item: Item, error: UserError) -> None:
        path = str(item.sample.media.paths[0])
        self.bad.append(Refused(item.sample.id, "", str(error), bad_medium=path))
        self.unused["medium does not open"] += len(item.conversations) * self.draws


def mine(
    model: Any,
    processor: Any,
    items: Sequence[Item],
    limits: MediaLimits,
    settings: MiningSettings,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[Mined, list[Refused]]:
    """Pairs of the items' answers and the model's wrong ones.

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
    account = _Account(settings.draws)
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
    was_training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for batch in batches:
            for asked, answer in _drawn(model, processor, batch, settings):
                item = asked_items[asked.item]
                found = _judged(item, asked.question, answer, processor, limits, settings)
                if isinstance(found, str):
                    account.unused[found] += 1
                else:
                    account.pairs.append(_pair(item, numbers[asked.item], asked.question, *found))
            on_progress(len(batch))
    model.train(was_training)
    wanted = settings.draws * sum(len(item.conversations) for item in items)
    account.unused["not asked"] = wanted - len(account.pairs) - account.unused.total()
    return Mined.of(account.pairs, account.unused), account.bad


def _drawn(
    model: Any, processor: Any, batch: Sequence[Asked], settings: MiningSettings
) -> Iterator[tuple[Asked, Answer]]:
    prompts = [asked.prompt for asked in batch]
    for _ in range(settings.draws):
        length = settings.max_new_tokens
        answers = generate_answers(model, processor, prompts, max_new_tokens=length, is_drawn=True)
        yield from zip(batch, answers, strict=True)


def _scored_items(items: Sequence[Item], account: _Account, seed: int) -> list[int]:
    """Numbers of the items worth asking about, in drawn order; the others are counted.

    A tree without media is one that positions tell from separate sequences (`token_stream`).
    """
    numbers = []
    order = ItemOrder(len(items), seed=seed)
    for number in map(order.item_at, range(len(items))):
        item = items[number]
        first = item.conversations[0]
        if not item.sample.media.paths:
            account.unused["no medium"] += len(item.conversations) * account.draws
        elif reward(item, first, first.answer) is None:  # a matter of the item's task
            account.unused["not scored"] += len(item.conversations) * account.draws
        else:
            numbers.append(number)
    return numbers


def _judged(
    item: Item,
    question: int,
    answer: Answer,
    processor: Any,
    limits: MediaLimits,
    settings: MiningSettings,
) -> Unused | tuple[str, float]:
    """The text and score of a worse answer, or why there is none."""
    conversation = item.conversations[question]
    scores = (reward(item, conversation, text) for text in (answer.text, conversation.answer))
    said_f1, truth_f1 = (0.0 if score is None else score for score in scores)
    unused = why_unused(
        said=answer.text,
        said_f1=said_f1,
        is_cut=answer.is_cut,
        truth=conversation.answer,
        truth_f1=truth_f1,
        below_f1=settings.below_f1,
    )
    if unused is not None:
        return unused
    if special_token_in([answer.text], processor):
        return "special token"
    if num_pair_tokens(item, question, answer.text, processor, limits) > settings.max_tokens:
        return "too long"
    return answer.text, said_f1


def num_pair_tokens(
    item: Item, question: int, rejected: str, processor: Any, limits: MediaLimits
) -> int:
    """Length of a sequence that holds a medium and one pair."""
    asked = item.conversations[question]
    both = (asked.messages, (asked.question, rejected))
    answers = sum(num_branch_tokens(messages, processor) for messages in both)
    return 1 + num_vision_tokens(item, processor, limits) + answers


def _pair(item: Item, number: int, question: int, rejected: str, f1: float) -> Pair:
    asked = item.conversations[question]
    return Pair(number, question, asked.question, asked.answer, rejected, f1)
