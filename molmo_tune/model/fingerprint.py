"""Which base a run was trained on, beyond its name: small digests, recorded and compared.

A name is not enough. A folder can be replaced, a hub id can get new files, and an adapter fits any
base of the same shapes; with another tokenizer it still answers, but in other words. So a run
records digests of its base, and whatever uses the run later checks them.

    tokenizer   every token and its id, and the ids of begin, end and padding
    chat        the chat template
    weights     the last norm and the first rows of the embedding and the head, in bfloat16, so that
                the dtype of loading does not matter

Limitations: a difference elsewhere in the weights goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from molmo_tune.encoding.processor import Processor
from molmo_tune.errors import UserError
from molmo_tune.model.adapters import bare_model

ROWS = 64
_NAMES = {
    "tokenizer": "the tokenizer of the base",
    "chat": "the chat template of the base",
    "weights": "the base itself",
}


def base_identity(model: torch.nn.Module, processor: Processor) -> dict[str, str]:
    """Return digests of a loaded base, with or without adapters.

    Weights loaded in float16 have none, because they round to other bfloat16 values.
    """
    return processor_identity(processor) | decoder_identity(model)


def decoder_identity(model: torch.nn.Module) -> dict[str, str]:
    """Return only the digest of a loaded base's weights; nothing if they are in float16."""
    bare = bare_model(model)
    decoder = bare.model.language_model
    if decoder.embed_tokens.weight.dtype == torch.float16:
        return {}
    tensors = (decoder.norm.weight, decoder.embed_tokens.weight, bare.lm_head.weight)
    return {"weights": weights_identity(*(tensor[:ROWS] for tensor in tensors))}


def weights_identity(norm: torch.Tensor, embedding: torch.Tensor, head: torch.Tensor) -> str:
    """Return the digest of these tensors; callers pass only the first `ROWS` rows."""
    digest = hashlib.sha256()
    for rows in (norm, embedding, head):
        bits = rows.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8)
        digest.update(bits.numpy().tobytes())
    return digest.hexdigest()[:16]


def processor_identity(processor: Processor) -> dict[str, str]:
    """Return digests of the tokenizer and the chat template."""
    tokenizer = processor.tokenizer
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    template = processor.chat_template or tokenizer.chat_template
    return {
        "tokenizer": _digest([sorted(tokenizer.get_vocab().items()), special]),
        "chat": _digest(template),
    }


def require_same_base(recorded: dict[str, str], found: dict[str, str], where: object) -> None:
    """Compare recorded digests with those found now.

    Args:
        recorded: digests by name.
        found: digests by name; missing ones count as equal.
        where: file with the recorded ones, for the message.

    Raises:
        UserError: they differ.
    """
    for name, digest in recorded.items():
        if found.get(name, digest) != digest:
            raise UserError(
                where,
                f"{_NAMES.get(name, name)} differs from the one trained on",
                f"{name} {digest}",
                "restore the base, or set model.name in the run's recipe.yaml to the right one",
            )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
