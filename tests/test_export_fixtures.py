"""Exports of both reference checkpoints have their exact layout and the answers of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from molmo_tune.errors import UserError
from molmo_tune.export.adapters.fused_adapter import fused_updates
from molmo_tune.export.adapters.vllm_adapter import export_vllm_adapter
from molmo_tune.export.export import export_run
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.layouts.tensor_layouts import Layout
from molmo_tune.export.merge import write_layout
from molmo_tune.export.weight_updates import NoUpdates
from molmo_tune.model.adapters import load_adapter
from molmo_tune.model.loading import load_model, load_processor
from tests.export_runs import make_run, probe_logits

BASES = ("molmo2-tiny-qwen", "molmo2-tiny-olmo")
ALL = ("language", "connector", "vision")
FROZEN: dict[str, dict[str, Any]] = {  # what the run was trained with, by make_run
    "preprocessor_config.json": {"max_crops": 3},
    "video_preprocessor_config.json": {
        "num_frames": 9,
        "max_fps": 1.5,
        "frame_sample_mode": "uniform_last_frame",
    },
}
KINDS: dict[str, dict[str, Any]] = {
    "language": {},
    "dora": {"method": "dora"},
    "qlora": {"quantize": "nf4"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [(BASES[0], "language"), (BASES[1], "language"), (BASES[1], "dora"), (BASES[0], "qlora")],
)
def test_hub_export_differs_from_base_only_in_trained_tensors(
    name: str, kind: str, shared: Path, tmp_path: Path
) -> None:
    base = shared / "fixtures" / name
    run = make_run(tmp_path / "run", str(base), **KINDS[kind])
    result = export_run(run, tmp_path / "out", dtype="float32")
    assert result.verification.max_logit_diff <= 1e-4
    assert result.verification.equal_answers == len(result.verification.answers) == 4
    ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "out", base))
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    changed = {n for n in theirs if not torch.equal(ours[n], theirs[n].float())}
    assert changed == set(result.tensors.merged)
    for file in base.iterdir():
        if file.name == "config.json":
            old, new = (json.loads((f / file.name).read_text()) for f in (base, tmp_path / "out"))
            assert new == old | {"dtype": "float32"}
        elif file.name in FROZEN:
            old, new = (json.loads((f / file.name).read_text()) for f in (base, tmp_path / "out"))
            assert new == old | FROZEN[file.name]
        elif file.suffix != ".safetensors" and file.name != "README.md":
            assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()


def _copy_of(base: Path, folder: Path) -> Path:
    """All files except the weights."""
    folder.mkdir()
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_adapters_in_all_parts_are_merged(name: str, shared: Path, tmp_path: Path) -> None:
    """1e-4 in float64; in float32 no further from the run than PEFT's own merge, times 1.2.

    Measured on these random checkpoints, in float32: the adapter's model against the same model in
    float64 7e-5 to 1.1e-4, PEFT's merge against the adapter's model 0.93e-4 to 1.53e-4 (drawn
    weights and 60 real steps), our merge against PEFT's exactly 0; in float64, 1.3e-5 to 1.7e-5.
    So float32 itself does not hold 1e-4 here, whoever merges.
    """
    base = shared / "fixtures" / name
    run = make_run(tmp_path / "run", str(base), targets=ALL)
    verification = export_run(run, tmp_path / "out", dtype="float32").verification
    assert 0 < verification.merge_floor < 3e-4
    assert verification.max_logit_diff <= 1.2 * verification.merge_floor
    processor = load_processor(str(base))
    adapted = load_adapter(load_model(str(base)), run.adapter)
    expected = probe_logits(adapted, processor)
    found = probe_logits(load_model(str(tmp_path / "out")), processor)
    assert float((found - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("layout", ["native", "ai2"])
@pytest.mark.parametrize("name", BASES)
def test_layouts_round_trip(name: str, layout: Layout, shared: Path, tmp_path: Path) -> None:
    base = shared / "fixtures" / name
    there, back = _copy_of(base, tmp_path / "there"), _copy_of(base, tmp_path / "back")
    write_layout(read_checkpoint(base), NoUpdates(), there, layout, None)
    if layout == "native":
        weights = load_file(there / "model.safetensors")
        model = load_model(str(base), dtype=torch.bfloat16)
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[n], t) for n, t in model.state_dict().items())
    write_layout(read_checkpoint(there), NoUpdates(), back, "hub", None)
    ours, theirs = (load_file(f / "model.safetensors") for f in (back, base))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_fused_adapter_equals_the_split_one(name: str, shared: Path, tmp_path: Path) -> None:
    """Its updates, added to the fused hub tensors, give the answers of the split adapter."""
    base = shared / "fixtures" / name
    run = make_run(tmp_path / "run", str(base))
    made = export_vllm_adapter(run, tmp_path / "adapter")
    assert made.max_lora_rank == 16  # three times rank 4
    merged = _copy_of(base, tmp_path / "merged")
    tensors = {n: t.float() for n, t in load_file(base / "model.safetensors").items()}
    for module, update in fused_updates(made.folder):
        tensors[f"{module}.weight"] += update
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    processor = load_processor(str(base))
    adapted = load_adapter(load_model(str(base)), run.adapter)
    expected, found = (
        probe_logits(adapted, processor),
        probe_logits(load_model(str(merged)), processor),
    )
    assert float((found - expected).abs().max()) < 3e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dora"}, "a DoRA adapter, which vLLM does not serve"),
        ({"targets": ALL}, "an adapter on connector, vision, which vLLM does not serve"),
    ],
)
def test_adapters_that_vllm_cannot_serve_are_rejected(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", "tiny", **options)
    with pytest.raises(UserError, match=message):
        export_vllm_adapter(run, tmp_path / "place" / "out")
    assert not (tmp_path / "place").exists()
