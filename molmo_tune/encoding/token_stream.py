"""The token stream that the model was trained on, with targets and loss weights.

    [BOS] [vision tokens] [subtitle] [user turn] [answer] [end] [user turn] [answer] [end] …

BOS is the end token if the tokenizer has no BOS of its own. Media come first, before the first user
turn. Every message is tokenized on its own, with nothing in between, and only answer tokens and the
end token after each answer have loss weight. Inference uses `prompt_ids`, which builds the same
stream up to the last answer, so training and inference cannot drift apart.

In a message tree, every branch is a conversation that continues from the shared prefix: its
positions restart there, and it attends to the prefix and to itself. (In a tree without media,
branches restart at position 0, as BOS does. The model was trained this way.)

A subtitle is plain text after the frames, limited to the spoken lines near a sampled frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmo_tune.choices import Weighting
from molmo_tune.encoding.encoded import IGNORED_ID
from molmo_tune.encoding.loss_weights import answer_weight
from molmo_tune.encoding.processor import Tokenizer
from molmo_tune.templates.chat import render_turns

Ids = list[int]

NO_TARGET = 0  # target of the last token of a prompt; it has no loss weight
SUBTITLE_REACH_S = 1.0


@dataclass(frozen=True, slots=True)
class TokenStream:
    """The arrays of an `EncodedSample` that come from text, all of shape ``(N,)``."""

    input_ids: NDArray[np.int64]
    target_ids: NDArray[np.int64]
    loss_weights: NDArray[np.float32]
    position_ids: NDArray[np.int64]
    branch_ids: NDArray[np.int64]


def text_ids(tokenizer: Tokenizer, text: str) -> Ids:
    """Return the token ids of a text, without BOS and end token."""
    ids: Ids = tokenizer.encode(text, add_special_tokens=False)
    return ids


def bos_id(tokenizer: Tokenizer) -> int:
    """Return the first token of every sequence: the tokenizer's BOS, else its end token."""
    bos = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if bos is None else bos)


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """One line of a subtitle; times in seconds from the start of the clip."""

    start_s: float
    end_s: float
    text: str


def subtitle_ids(
    tokenizer: Tokenizer,
    subtitle: str | Sequence[SpokenLine],
    times_s: Sequence[float],
    reach_s: float | None = SUBTITLE_REACH_S,
) -> Ids:
    """Return the tokens of a subtitle, which directly follow those of its video.

    Args:
        tokenizer: the checkpoint's tokenizer.
        subtitle: spoken lines, or finished text; empty gives no tokens.
        times_s: times of the frames that the model sees.
        reach_s: a line is kept if a frame is at most this many seconds away; None keeps all.
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
    """Return what the model reads before it answers the last of `messages` (user, answer, …)."""
    ids = [bos_id(tokenizer), *prefix_ids]
    for number, text in enumerate(render_turns(list(messages))):
        ids += text_ids(tokenizer, text)
        if number % 2 == 1:
            ids.append(int(tokenizer.eos_token_id))
    return ids


def prompt_stream(
    tokenizer: Tokenizer, prefix_ids: Sequence[int], messages: Sequence[str]
) -> TokenStream:
    """Return `prompt_ids` as a stream without loss weights."""
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
    """Return the stream of one linear conversation.

    Args:
        tokenizer: the checkpoint's tokenizer.
        prefix_ids: vision tokens and subtitle, without BOS.
        messages: question, answer, question, answer, …
        weighting: how the length of the answers scales their weight.
        weight: factor of the sample's data source.
    """
    prefix = [bos_id(tokenizer), *prefix_ids]
    ids, is_answer = _turn_ids(tokenizer, messages)
    weights = [
        answer_weight(weighting, num_tokens=sum(is_answer), num_branches=1, weight=weight) * trained
        for trained in is_answer
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
    """Return the stream of several conversations about the same media.

    The target of a branch's last token is the end token; it has the weight of the token before it
    and does not count toward the answer's length, as in the reference. A single branch is a linear
    conversation.
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
        ids, is_answer = _turn_ids(tokenizer, messages)
        scale = answer_weight(
            weighting, num_tokens=sum(is_answer) - 1, num_branches=len(branches), weight=weight
        )
        if number == 1:
            targets[-1] = ids[0]
        inputs += ids[:-1]
        targets += ids[1:]
        weights += [scale * trained for trained in is_answer[1:]]
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
    """Return the ids of all turns, and which of them belong to an answer or its end token."""
    ids: Ids = []
    is_answer: list[bool] = []
    for number, text in enumerate(render_turns(list(messages))):
        part = text_ids(tokenizer, text)
        if number % 2 == 1:
            part.append(int(tokenizer.eos_token_id))
        ids += part
        is_answer += [number % 2 == 1] * len(part)
    return ids, is_answer
