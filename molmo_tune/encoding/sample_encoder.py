"""Encoding of conversations and vision inputs as `EncodedSample`s; for inference, prompts only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from molmo_tune.choices import Weighting
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.token_stream import (
    TokenStream,
    conversation_stream,
    prompt_stream,
    tree_stream,
)
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs
from molmo_tune.encoding.vision_tokens import VisionLayout


def encode_conversation(
    processor: Processor,
    sample_id: str,
    messages: Sequence[str],
    vision: VisionInputs = NO_VISION,
    *,
    weighting: Weighting = "flat",
    weight: float = 1.0,
) -> EncodedSample:
    """Return one conversation ``[question, answer, question, answer, …]`` with its targets."""
    stream = conversation_stream(
        processor.tokenizer, vision.token_ids, messages, weighting=weighting, weight=weight
    )
    return _encoded(processor, sample_id, stream, vision)


def encode_tree(
    processor: Processor,
    sample_id: str,
    branches: Sequence[Sequence[str]],
    vision: VisionInputs = NO_VISION,
    *,
    weighting: Weighting = "flat",
    weight: float = 1.0,
) -> EncodedSample:
    """Return several conversations about the same media as one message tree."""
    stream = tree_stream(
        processor.tokenizer, vision.token_ids, branches, weighting=weighting, weight=weight
    )
    return _encoded(processor, sample_id, stream, vision)


def encode_prompt(
    processor: Processor, sample_id: str, messages: Sequence[str], vision: VisionInputs = NO_VISION
) -> EncodedSample:
    """Return the prompt that precedes an answer: the same tokens as in training, no targets.

    ``messages`` ends with a question.
    """
    stream = prompt_stream(processor.tokenizer, vision.token_ids, messages)
    return _encoded(processor, sample_id, stream, vision)


def _encoded(
    processor: Processor, sample_id: str, stream: TokenStream, vision: VisionInputs
) -> EncodedSample:
    is_vision = _is_member(stream.input_ids, VisionLayout.of(processor).bidirectional)
    return EncodedSample(
        sample_id=sample_id,
        input_ids=stream.input_ids,
        target_ids=stream.target_ids,
        loss_weights=stream.loss_weights,
        position_ids=stream.position_ids,
        branch_ids=stream.branch_ids,
        example_ids=np.zeros_like(stream.branch_ids),
        is_vision=is_vision,
        patches=vision.patches,
        pooling=vision.pooling,
    )


def _is_member(ids: NDArray[np.int64], members: frozenset[int]) -> NDArray[np.bool_]:
    return np.isin(ids, list(members))
