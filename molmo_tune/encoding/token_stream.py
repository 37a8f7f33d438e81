"""Questions and answers → the token stream the model was trained on, with targets and weights.

    [BOS] [vision tokens] [subtitle] [user turn] [answer] [end] [user turn] [answer] [end] …

BOS is the end token where the tokenizer has none of its own. Media come first, before the first
user turn. Every message is tokenized by itself, nothing is added between them, and only the tokens
of answers and the end token behind each carry weight. Inference uses `prompt_ids`, which is the
same function up to the last answer, so that training and inference cannot drift apart.

In a message tree every branch is a conversation that continues from the shared prefix: it restarts
the positions there and has the prefix and itself to look at. (A tree without media is the odd one
out: its branches restart at BOS's own position 0. So the model was trained, and so it is here.)

A subtitle is plain text behind the frames: of the spoken lines only those near a sampled frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmo_tune.encoding.encoded import IGNORED_ID
from molmo_tune.encoding.loss_weights import Weighting, answer_weight
from molmo_tune.encoding.processor import Tokenizer
from molmo_tune.templates.chat import render_turns

Ids = list[int]

NO_TARGET = 0  # behind the last token of a prompt; it has no weight
SUBTITLE_REACH_S = 1.0


@dataclass(frozen=True, slots=True)
class TokenStream:
    """The arrays of `EncodedSample` that come from text; all of shape ``(N,)``."""

    input_ids: NDArray[np.int64]
    target_ids: NDArray[np.int64]
    loss_weights: NDArray[np.float32]
    position_ids: NDArray[np.int64]
    branch_ids: NDArray[np.int64]


def text_ids(tokenizer: Tokenizer, text: str) -> Ids:
    """Token ids of a text alone: no BOS, no end token."""
    ids: Ids = tokenizer.encode(text, add_special_tokens=False)
    return ids


def bos_id(tokenizer: Tokenizer) -> int:
    """The token that opens every sequence: the tokenizer's BOS, else its end token."""
    bos = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if bos is None else bos)


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """One line of a subtitle; seconds from the start of the clip."""

    start_s: float
    end_s: float
    text: str


def subtitle_ids(
    tokenizer: Tokenizer,
    subtitle: str | Sequence[SpokenLine],
    times_s: Sequence[float],
    reach_s: float | None = SUBTITLE_REACH_S,
) -> Ids:
    """Tokens of a subtitle, to stand directly behind those of its video; none when it is empty.

    Args:
        tokenizer: of the checkpoint.
        subtitle: spoken lines, or finished text that is taken as it is.
        times_s: of the frames that the model sees.
        reach_s: a line is kept when a frame lies within so many seconds of it; None keeps all.
    """
    if not subtitle:
        return []
    if isinstance(subtitle, str):
        return text_ids(tokenizer, f"subtitle\n{subtitle}")
    lines = [
        f"{line.start_s:.1f} - {line.end_s:.1f} {line.text}\n"
        for line in subtitle
        if reach_s is None or _is_near(line, times_s, reach_s)
    ]
    return text_ids(tokenizer, "".join(["subtitle\n", *lines]))


def _is_near(line: SpokenLine, times_s: Sequence[float], reach_s: float) -> bool:
    return any(line.end_s >= t - reach_s and line.start_s <= t + reach_s for t in times_s)


def prompt_ids(tokenizer: Tokenizer, prefix_ids: Sequence[int], messages: Sequence[str]) -> Ids:
    """What the model reads before it answers the last of `messages` (user, answer, user, …)."""
    ids = [bos_id(tokenizer), *prefix_ids]
    for number, text in enumerate(render_turns(list(messages))):
        ids += text_ids(tokenizer, text)
        if number % 2 == 1:
            ids.append(int(tokenizer.eos_token_id))
    return ids


def prompt_stream(
    tokenizer: Tokenizer, prefix_ids: Sequence[int], messages: Sequence[str]
) -> TokenStream:
    """`prompt_ids` as a stream in which nothing is trained."""
    ids = prompt_ids(tokenizer, prefix_ids, messages)
    return TokenStream(
        input_ids=np.array(ids, np.int64),
        target_ids=np.array([*ids[1:], NO_TARGET], np.int64),
        loss_weights=np.zeros(len(ids), np.float32),
        position_ids=np.arange(len(ids), dtype=np.int64),
        branch_ids=np.zeros(len(ids), np.int64),
    )


def conversation_stream(
    tokenizer: Tokenizer,
    prefix_ids: Sequence[int],
    messages: Sequence[str],
    *,
    weighting: Weighting = "flat",
    weight: float = 1.0,
) -> TokenStream:
    """One linear conversation.

    Args:
        tokenizer: of the checkpoint.
        prefix_ids: vision tokens and subtitle, without BOS.
        messages: question, answer, question, answer, …
        weighting: how the answers' lengths scale their weight.
        weight: of the sample's data source.
    """
    prefix = [bos_id(tokenizer), *prefix_ids]
    ids, answered = _turn_ids(tokenizer, messages)
    weights = [
        answer_weight(weighting, num_tokens=sum(answered), num_branches=1, weight=weight)
        * is_answer
        for is_answer in answered
    ]
    tokens, token_weights = prefix + ids, [0.0] * len(prefix) + weights
    length = len(tokens) - 1
    return TokenStream(
        input_ids=np.array(tokens[:-1], np.int64),
        target_ids=np.array(tokens[1:], np.int64),
        loss_weights=np.array(token_weights[1:], np.float32),
        position_ids=np.arange(length, dtype=np.int64),
        branch_ids=np.zeros(length, np.int64),
    )


def tree_stream(
    tokenizer: Tokenizer,
    prefix_ids: Sequence[int],
    branches: Sequence[Sequence[str]],
    *,
    weighting: Weighting = "flat",
    weight: float = 1.0,
) -> TokenStream:
    """Several conversations about the same media; a single branch is a linear conversation.

    The target of a branch's last token is the end token; it takes the weight of the token before
    and does not count toward the answer's length (as in the reference).
    """
    if len(branches) == 1:
        return conversation_stream(
            tokenizer, prefix_ids, branches[0], weighting=weighting, weight=weight
        )
    prefix = [bos_id(tokenizer), *prefix_ids]
    inputs, targets = list(prefix), [*prefix[1:], IGNORED_ID]
    weights = [0.0] * len(prefix)
    positions, branch_ids = list(range(len(prefix))), [0] * len(prefix)
    restart = len(prefix) if prefix_ids else 0
    for number, messages in enumerate(branches, start=1):
        ids, answered = _turn_ids(tokenizer, messages)
        scale = answer_weight(
            weighting, num_tokens=sum(answered) - 1, num_branches=len(branches), weight=weight
        )
        if number == 1:
            targets[-1] = ids[0]
        inputs += ids[:-1]
        targets += ids[1:]
        weights += [scale * is_answer for is_answer in answered[1:]]
        positions += range(restart, restart + len(ids) - 1)
        branch_ids += [number] * (len(ids) - 1)
    return TokenStream(
        input_ids=np.array(inputs, np.int64),
        target_ids=np.array(targets, np.int64),
        loss_weights=np.array(weights, np.float32),
        position_ids=np.array(positions, np.int64),
        branch_ids=np.array(branch_ids, np.int64),
    )


def _turn_ids(tokenizer: Tokenizer, messages: Sequence[str]) -> tuple[Ids, list[bool]]:
    """Ids of all turns, and which of them belong to an answer or its end token."""
    ids: Ids = []
    answered: list[bool] = []
    for number, text in enumerate(render_turns(list(messages))):
        part = text_ids(tokenizer, text)
        if number % 2 == 1:
            part.append(int(tokenizer.eos_token_id))
        ids += part
        answered += [number % 2 == 1] * len(part)
    return ids, answered
