"""The masks that servers have, as `tests.serving` states them."""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.export.verification.verify import make_probes
from molmo_tune.model.loading import load_model, load_processor
from tests.serving.mask_cost import MASKS, masked_by, unbroken_rows


def test_rows_of_image_tokens() -> None:
    blocks = torch.tensor([[-1, 0, 0, -1, 0, -1], [0, -1, -1, 0, 0, 0]])
    assert unbroken_rows(blocks).tolist() == [[-1, 0, 0, -1, 1, -1], [0, -1, -1, 1, 1, 1]]


def test_masks_reach_the_model_where_they_differ() -> None:
    """One image is one row; a clip has a row per frame; text has none."""
    model, processor = load_model("tiny"), load_processor("tiny")
    probes = make_probes(processor)
    first: dict[str, dict[str, Any]] = {name: {} for name in probes}
    for mask, rule in MASKS.items():
        with masked_by(rule):
            for name, probe in probes.items():
                first[name][mask] = _first_logits(model, processor, probe)
    trained, within, causal = MASKS
    for name, logits in first.items():
        assert torch.equal(logits[trained], logits[causal]) == (name == "text")
        assert torch.equal(logits[trained], logits[within]) == (name in ("text", "image"))


def _first_logits(model: Any, processor: Any, probe: Any) -> torch.Tensor:
    """Of the answer's first token."""
    heard: list[torch.Tensor] = []
    handle = model.lm_head.register_forward_hook(lambda _, __, out: heard.append(out[:, -1]))
    try:
        generate_answers(model, processor, [probe], max_new_tokens=1)
    finally:
        handle.remove()
    return heard[0]
