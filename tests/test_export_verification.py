"""Verification of large models: 16-bit weights give float32 logits, one model in memory."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from molmo_tune.export.convert import convert_checkpoint
from molmo_tune.export.export import export_run
from molmo_tune.export.verification import load_models
from molmo_tune.export.verification.load_models import load_float32
from molmo_tune.model.adapters import load_adapter
from molmo_tune.model.loading import TINY_FOLDER, load_model, load_processor
from tests.export_runs import make_run, probe_logits

KINDS: dict[str, dict[str, Any]] = {
    "molmo2-tiny-qwen": {"targets": ("language", "connector", "vision")},
    "molmo2-tiny-olmo": {"method": "dora"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_16bit_weights_give_the_float32_logits(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = str(shared / "fixtures" / name)
    run = make_run(tmp_path / "run", base, **KINDS[name])
    expected = load_adapter(load_model(base), run.adapter)
    monkeypatch.setattr(load_models, "LARGE", 0)
    stored = load_adapter(load_float32(base, torch.bfloat16, 1), run.adapter)
    narrow = [p for n, p in stored.named_parameters() if p.dtype == torch.bfloat16]
    assert len(narrow) == 7 * stored.config.text_config.num_hidden_layers
    processor = load_processor(base)
    found = probe_logits(stored, processor, dtype=None)
    assert torch.equal(found, probe_logits(expected, processor, torch.float32))
    assert all(p.dtype == torch.bfloat16 for p in narrow)


def test_large_and_small_models_have_the_same_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_checkpoint(TINY_FOLDER, tmp_path / "base", layout="hub", dtype="bfloat16")
    run = make_run(tmp_path / "run", str(tmp_path / "base"))
    small = export_run(run, tmp_path / "small").verification
    monkeypatch.setattr(load_models, "LARGE", 0)
    assert export_run(run, tmp_path / "large").verification == small


@pytest.mark.slow
def test_only_one_model_is_in_memory_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, alive = make_run(tmp_path / "run", "tiny"), []
    load = load_models.load_float32

    def watched(*arguments: Any) -> Any:
        gc.collect()
        assert [model for model in alive if model() is not None] == []
        model = load(*arguments)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(load_models, "load_float32", watched)
    export_run(run, tmp_path / "out")
    assert len(alive) == 2
