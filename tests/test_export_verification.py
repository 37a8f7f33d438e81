"""The proof's memory: weights at rest in 16 bits say what float32 ones say, one model at a time."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from molmo_tune.export import export as export_module
from molmo_tune.export.convert import convert_checkpoint
from molmo_tune.export.export import export_run
from molmo_tune.export.verification import stored_16bit as at_rest
from molmo_tune.export.verification.stored_16bit import load_for_proof
from molmo_tune.model.adapters import load_adapter
from molmo_tune.model.loading import TINY_FOLDER, load_model, load_processor
from tests.export_runs import make_run, probe_logits

KINDS: dict[str, dict[str, Any]] = {
    "molmo2-tiny-qwen": {"targets": ("language", "connector", "vision")},
    "molmo2-tiny-olmo": {"method": "dora"},
}


@pytest.mark.parametrize("name", KINDS)
def test_weights_at_rest_in_sixteen_bits_say_the_same(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = str(shared / "fixtures" / name)
    run = make_run(tmp_path / "run", base, **KINDS[name])
    wanted = load_adapter(load_model(base), run.adapter)
    monkeypatch.setattr(at_rest, "LARGE", 0)
    resting = load_adapter(load_for_proof(base, torch.bfloat16, 1), run.adapter)
    narrow = [p for n, p in resting.named_parameters() if p.dtype == torch.bfloat16]
    assert len(narrow) == 7 * resting.config.text_config.num_hidden_layers
    processor = load_processor(base)
    found = probe_logits(resting, processor, dtype=None)
    assert torch.equal(found, probe_logits(wanted, processor, torch.float32))
    assert all(p.dtype == torch.bfloat16 for p in narrow)


def test_a_large_models_export_is_proven_as_a_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_checkpoint(TINY_FOLDER, tmp_path / "base", layout="hub", dtype="bfloat16")
    run = make_run(tmp_path / "run", str(tmp_path / "base"))
    small = export_run(run, tmp_path / "small").proof
    monkeypatch.setattr(at_rest, "LARGE", 0)
    monkeypatch.setattr(export_module, "LARGE", 0)
    assert export_run(run, tmp_path / "large").proof == small


def test_one_model_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, alive = make_run(tmp_path / "run", "tiny"), []
    load = export_module.load_for_proof

    def watched(*arguments: Any) -> Any:
        gc.collect()
        assert [model for model in alive if model() is not None] == []
        model = load(*arguments)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(export_module, "load_for_proof", watched)
    export_run(run, tmp_path / "out")
    assert len(alive) == 2
