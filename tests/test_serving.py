"""The attention masks of servers, as `tests.serving` reproduces them."""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.export.verification.probes import make_probes
from molmo_tune.model.loading import load_model, load_processor
from tests.serving.mask_cost import MASKS, contiguous_rows, use_mask


def test_contiguous_rows_of_image_tokens() -> None:
    blocks = torch.tensor([[-1, 0, 0, -1, 0, -1], [0, -1, -1, 0, 0, 0]])
    assert contiguous_rows(blocks).tolist() == [[-1, 0, 0, -1, 1, -1], [0, -1, -1, 1, 1, 1]]


def test_masks_change_the_logits_where_they_differ() -> None:
    """One image is one row; a video has a row per frame; text has none."""
    model, processor = load_model("tiny"), load_processor("tiny")
    probes = make_probes(processor)
    first: dict[str, dict[str, Any]] = {name: {} for name in probes}
    for mask, rule in MASKS.items():
        with use_mask(rule):
            for name, probe in probes.items():
                first[name][mask] = _first_logits(model, processor, probe)
    trained, within, causal = MASKS
    for name, logits in first.items():
        assert torch.equal(logits[trained], logits[causal]) == (name == "text")
        assert torch.equal(logits[trained], logits[within]) == (name in ("text", "image"))


def _first_logits(model: Any, processor: Any, probe: Any) -> torch.Tensor:
    """Return the logits of the first token of the answer."""
    captured: list[torch.Tensor] = []
    handle = model.lm_head.register_forward_hook(lambda _, __, out: captured.append(out[:, -1]))
    try:
        generate_answers(model, processor, [probe], max_new_tokens=1)
    finally:
        handle.remove()
    return captured[0]
