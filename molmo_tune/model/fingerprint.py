"""Which base a run was trained on, beyond its name: small digests, recorded and compared.

A name is no proof. A folder can be replaced, a hub id can get new files, and an adapter fits any
base of the same shapes; with another tokenizer it even answers, in other words. So a run records
digests of its base, and what is made from the run later is checked against them.

    tokenizer   every token and its id, and the ids of begin, end and padding
    chat        the chat template
    weights     the last norm and the first rows of the embedding and the head, in bfloat16, so that
                the precision the base was loaded in does not matter

What it does not do: find a difference elsewhere in the weights.
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
    """Digests of a loaded base, with or without adapters.

    The weights' is left away when they were loaded in float16, which other bfloat16 comes from.
    """
    return processor_identity(processor) | decoder_identity(model)


def decoder_identity(model: torch.nn.Module) -> dict[str, str]:
    """The digest of a loaded base's weights alone, or none (float16)."""
    bare = bare_model(model)
    decoder = bare.model.language_model
    if decoder.embed_tokens.weight.dtype == torch.float16:
        return {}
    tensors = (decoder.norm.weight, decoder.embed_tokens.weight, bare.lm_head.weight)
    return {"weights": weights_identity(*(tensor[:ROWS] for tensor in tensors))}


def weights_identity(norm: torch.Tensor, embedding: torch.Tensor, head: torch.Tensor) -> str:
    """Digest of the first `ROWS` rows of these tensors."""
    digest = hashlib.sha256()
    for rows in (norm, embedding, head):
        bits = rows.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8)
        digest.update(bits.numpy().tobytes())
    return digest.hexdigest()[:16]


def processor_identity(processor: Processor) -> dict[str, str]:
    """Digests of the tokenizer and the chat template."""
    tokenizer = processor.tokenizer
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    template = processor.chat_template or tokenizer.chat_template
    return {
        "tokenizer": _digest([sorted(tokenizer.get_vocab().items()), special]),
        "chat": _digest(template),
    }


def require_same_base(recorded: dict[str, str], found: dict[str, str], where: object) -> None:
    """Compare what a run recorded with what is there now.

    Raises:
        UserError: they differ.
    """
    for name, digest in recorded.items():
        if found.get(name, digest) != digest:
            raise UserError(
                where,
                f"{_NAMES.get(name, name)} is not the one that was trained on",
                f"{name} {digest}",
                "restore the base, or name the right one as model.name in the run's recipe.yaml",
            )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
