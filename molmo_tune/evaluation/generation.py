"""Greedy or sampled answers to a batch of prompts, with the vision encoding of training.

Prompts of different lengths are padded on the left. Vision features come from the function that
training uses and are added to the embeddings, so a batch can mix images and videos, and answers
are generated from the same inputs as the loss. Transformers' `generate` does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from molmo_tune.encoding.collation import join_vision
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.processor import Processor, Tokenizer
from molmo_tune.model.forward import add_features
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.vision_encoding import encode_vision


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer; ``is_truncated``: the token limit came before the end token."""

    text: str
    is_truncated: bool


@torch.no_grad()
def generate_answers(
    model: Molmo,
    processor: Processor,
    prompts: Sequence[EncodedSample],
    *,
    max_new_tokens: int,
    is_sampled: bool = False,
) -> list[Answer]:
    """Return one answer per prompt.

    Args:
        model: `Molmo2ForConditionalGeneration` in evaluation mode, with adapters.
        processor: of its checkpoint.
        prompts: from `encode_prompt`.
        max_new_tokens: longer answers are truncated and marked.
        is_sampled: sample tokens at temperature 1, without top-k and top-p, from PyTorch's global
            generator; otherwise greedy.
    """
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} if is_sampled else {}
    tokenizer = processor.tokenizer
    device = model.get_input_embeddings().weight.device
    ids, is_token, is_vision = (
        part.to(device) for part in _left_padded(prompts, pad_id=int(tokenizer.pad_token_id))
    )
    embeddings = model.get_input_embeddings()(ids)
    patches, pooling = (torch.from_numpy(part).to(device) for part in join_vision(prompts))
    if len(patches):
        features = encode_vision(model.model, patches, pooling)
        is_patch = (ids == model.config.image_patch_id) & is_token
        embeddings = add_features(embeddings, features, is_patch)
    new_ids = model.generate(
        inputs_embeds=embeddings,
        attention_mask=is_token.long(),
        mm_token_type_ids=(is_vision & is_token).long(),
        max_new_tokens=max_new_tokens,
        do_sample=is_sampled,
        **sampling,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return [_answer(tokenizer, row) for row in new_ids.tolist()]


def _left_padded(
    prompts: Sequence[EncodedSample], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, mask of tokens (not padding) and mask of vision tokens, each ``(B, L)``."""
    length = max(prompt.num_tokens for prompt in prompts)
    ids = torch.full((len(prompts), length), pad_id)
    is_token = torch.zeros((len(prompts), length), dtype=torch.bool)
    is_vision = torch.zeros_like(is_token)
    for row, prompt in enumerate(prompts):
        start = length - prompt.num_tokens
        ids[row, start:] = torch.from_numpy(prompt.input_ids)
        is_token[row, start:] = True
        is_vision[row, start:] = torch.from_numpy(prompt.is_vision)
    return ids, is_token, is_vision


def _answer(tokenizer: Tokenizer, ids: list[int]) -> Answer:
    end = tokenizer.eos_token_id
    is_truncated = end not in ids
    kept = ids if is_truncated else ids[: ids.index(end)]
    return Answer(tokenizer.decode(kept, skip_special_tokens=True), is_truncated)
