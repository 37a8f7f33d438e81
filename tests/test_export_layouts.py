"""Every layout, exported on the command line, is read by the software it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from molmo_tune.cli import main
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.safetensors_files import TensorSpec
from molmo_tune.export.files.torch_files import read_torch_file, write_torch_file
from molmo_tune.export.layouts.tensor_layouts import ai2_name
from molmo_tune.export.merge import write_layout
from molmo_tune.export.verification.probes import make_probes
from molmo_tune.export.verification.vllm_requirements import unmet
from molmo_tune.model.adapters import load_adapter
from molmo_tune.model.loading import TINY_FOLDER, load_model, load_processor
from molmo_tune.run_folder import RunFolder
from tests.export_runs import make_run, probe_logits, shard

BASES = ("molmo2-tiny-qwen", "molmo2-tiny-olmo")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("layouts") / "run", "tiny")


@pytest.fixture(scope="module")
def expected(run: RunFolder) -> torch.Tensor:
    """Logits of the run on the probes."""
    model = load_adapter(load_model("tiny"), run.adapter)
    return probe_logits(model, load_processor("tiny"))


@pytest.fixture(scope="module")
def native_saved(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A released checkpoint saved by Transformers' `save_pretrained`."""
    from transformers import AutoProcessor

    folder = tmp_path_factory.mktemp("native") / "saved"
    base = shared / "fixtures" / "molmo2-tiny-olmo"
    load_model(str(base), dtype=torch.bfloat16).save_pretrained(folder)
    AutoProcessor.from_pretrained(base).save_pretrained(folder)
    return folder


def _export(source: Path, out: Path, layout: str, *more: str) -> dict[str, Any]:
    arguments = ["export", str(source), "--out", str(out), "--layout", layout, *more]
    assert main(arguments) == 0
    report = out / "export_report.json"
    return json.loads(report.read_text()) if report.is_file() else {}


@pytest.mark.parametrize("layout", ["hub", "native"])
def test_transformers_loads_the_export(
    layout: str, run: RunFolder, expected: torch.Tensor, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = _export(run.root, out, layout, "--dtype", "float32")
    found = probe_logits(load_model(str(out)), load_processor(str(out)))
    assert float((found - expected).abs().max()) < 1e-4
    assert report["tensors"]["merged"] > 0
    assert report["processor"]["max_frames"] == 9
    _require_reported(report, out)
    config = json.loads((out / "config.json").read_text())
    assert ("vit_config" in config) == (layout == "hub")
    assert ("vision_config" in config) == (layout == "native")


def _require_reported(report: dict[str, Any], out: Path) -> None:
    """The card has the number of equal answers and the logit difference of the report."""
    assert [probe for probe, _, _ in report["answers"]] == ["text", "image", "two images", "video"]
    equal = sum(ours == theirs for _, ours, theirs in report["answers"])
    card = (out / "README.md").read_text(encoding="utf-8")
    assert report["equal_answers"] == equal == 4
    assert "- 4 of 4 greedy answers equal the run's" in card
    assert f"at most {report['max_logit_diff']:.1e}" in card


def test_ai2_trainer_loads_the_export(
    run: RunFolder, expected: torch.Tensor, tmp_path: Path
) -> None:
    """Its loader is `torch.load(…, weights_only=True)`, with its own module names."""
    report = _export(run.root, tmp_path / "out", "ai2", "--dtype", "float32")
    _require_reported(report, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "model.pt", map_location="cpu", weights_only=True)
    base = load_file(TINY_FOLDER / "model.safetensors")
    assert {n: t.shape for n, t in state.items()} == {ai2_name(n): t.shape for n, t in base.items()}
    back = tmp_path / "back"
    report = _export(tmp_path / "out", back, "hub")
    assert report["converted_from"] == "ai2"
    found = probe_logits(load_model(str(back)), load_processor(str(back)))
    assert float((found - expected).abs().max()) < 1e-4


def test_peft_loads_the_export(run: RunFolder, expected: torch.Tensor, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _export(run.root, out, "adapter")
    found = probe_logits(load_adapter(load_model("tiny"), out), load_processor("tiny"))
    assert torch.equal(found, expected)
    assert (
        json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    )
    assert json.loads((out / "video_preprocessor_config.json").read_text())["num_frames"] == 9
    assert not (out / "config.json").exists()


@pytest.mark.parametrize("layout", ["adapter", "vllm-adapter"])
def test_adapters_have_a_report_and_a_card(layout: str, run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = _export(run.root, out, layout)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert report["layout"] == layout
    assert report["base"] == "tiny"
    assert report["processor"]["max_frames"] == 9
    assert f"- {len(report['modules'])} " in card
    assert "library_name: peft" in card
    assert str(tmp_path) not in card
    if layout == "vllm-adapter":
        assert report["vllm"]["max_lora_rank"] == 16  # three times rank 4
        assert "--max-lora-rank 16" in card
        assert "vLLM was not run" in card
        assert report["largest_update_diff"] <= 1e-6
        assert "the processor files include" not in card  # there are none


def test_full_fine_tune_is_not_exported_as_an_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = make_run(tmp_path / "run", "tiny", method="full", targets=("connector",))
    out = str(tmp_path / "out")
    assert main(["export", str(full.root), "--out", out, "--layout", "adapter"]) == 1
    assert "a full fine-tune" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [full.root]


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_trainer_state_converts_back_to_the_released_files(
    name: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shared / "fixtures" / name
    _export(base, tmp_path / "ai2", "ai2")
    state = tmp_path / "state"  # as the trainer saves it: no config.json
    state.mkdir()
    (tmp_path / "ai2" / "model.pt").rename(state / "model.pt")
    assert main(["export", str(state), "--out", str(tmp_path / "out")]) == 1
    assert "name one of the same shape with --like" in capsys.readouterr().err
    _export(state, tmp_path / "hub", "hub", "--like", str(base))
    assert (tmp_path / "hub" / "model.safetensors").read_bytes() == (
        base / "model.safetensors"
    ).read_bytes()
    for file in base.iterdir():
        if file.suffix == ".json":
            theirs = json.loads(file.read_text())
            assert json.loads((tmp_path / "hub" / file.name).read_text()) == theirs


def test_tied_weights_have_no_head_in_the_trainer_state(tmp_path: Path) -> None:
    """The 4B was trained with tied embeddings; its trainer rejects a state with a head."""
    tied = tmp_path / "tied"
    base = read_checkpoint(TINY_FOLDER)
    state = {ai2_name(n): t for n, t in load_file(TINY_FOLDER / "model.safetensors").items()}
    del state["transformer.ff_out.weight"]
    tied.mkdir()
    torch.save(state, tied / "model.pt")
    _export(tied, tmp_path / "hub", "hub", "--like", "tiny")
    hub = load_file(tmp_path / "hub" / "model.safetensors")
    assert torch.equal(hub["lm_head.weight"], hub["model.transformer.wte.embedding"])
    assert len(hub) == len(base.files[0].tensors)
    _export(tmp_path / "hub", tmp_path / "again", "ai2")
    again = torch.load(tmp_path / "again" / "model.pt", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[n], state[n]) for n in state)


@pytest.mark.slow
def test_checkpoint_saved_by_transformers_is_converted(
    native_saved: Path, shared: Path, tmp_path: Path
) -> None:
    """Its embedding is split in halves and its configuration renamed; both are reverted."""
    base = shared / "fixtures" / "molmo2-tiny-olmo"
    saved = load_file(native_saved / "model.safetensors")
    halves = {len(t) for n, t in saved.items() if "embedding" in n and ".wte." in n}
    assert halves == {(151936 + 128) // 2}
    loaded, ours = (load_model(str(f)).state_dict() for f in (native_saved, base))
    assert all(torch.equal(loaded[name], ours[name]) for name in ours)
    _export(native_saved, tmp_path / "hub", "hub")
    made, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "hub", base))
    assert made.keys() == theirs.keys()
    assert all(torch.equal(made[n], theirs[n]) for n in theirs)
    missing = unmet(tmp_path / "hub")
    assert missing == unmet(base)
    old, new = (json.loads((f / "config.json").read_text()) for f in (base, tmp_path / "hub"))
    for section in ("vit_config", "adapter_config", "text_config"):
        differing = {k for k in old[section] if new[section].get(k) != old[section][k]}
        assert differing <= {"attn_implementation", "num_hidden_layers", "vit_layers"}
    assert new["vit_config"]["num_hidden_layers"] == 25  # the layers in use, which have weights
    assert new["adapter_config"]["vit_layers"] == [24, 18]
    both = (make_probes(load_processor(str(f))) for f in (tmp_path / "hub", base))
    for ours_, theirs_ in zip(*(probes.values() for probes in both), strict=True):
        assert (ours_.input_ids == theirs_.input_ids).all()
        assert (ours_.patches == theirs_.patches).all()


@pytest.mark.slow
def test_run_on_a_base_saved_by_transformers_is_exported(
    native_saved: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", str(native_saved))
    report = _export(run.root, tmp_path / "out", "hub")
    assert report["tensors"]["merged"] > 0
    hub = load_file(tmp_path / "out" / "model.safetensors")
    assert hub["model.transformer.wte.new_embedding"].shape[0] == 128


def test_sharded_checkpoint_becomes_one_trainer_state(tmp_path: Path) -> None:
    from molmo_tune.export.weight_updates import NoUpdates

    tensors = load_file(TINY_FOLDER / "model.safetensors")
    shards = shard(tensors, tmp_path / "sharded")
    _export(tmp_path / "sharded", tmp_path / "ai2", "ai2")
    state = torch.load(tmp_path / "ai2" / "model.pt", weights_only=True)
    assert all(torch.equal(state[ai2_name(n)], t) for n, t in tensors.items())
    out = tmp_path / "native"
    out.mkdir()
    write_layout(read_checkpoint(tmp_path / "sharded"), NoUpdates(), out, "native", None)
    assert len(list(out.glob("*.safetensors"))) == shards
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == load_model("tiny").state_dict().keys()


def test_single_shard_keeps_its_index(tmp_path: Path) -> None:
    """Without an index, `model-00001-of-00001.safetensors` would not be found."""
    shard(load_file(TINY_FOLDER / "model.safetensors"), tmp_path / "base", count=1)
    run = make_run(tmp_path / "run", str(tmp_path / "base"))
    _export(run.root, tmp_path / "out", "hub")
    assert (tmp_path / "out" / "model-00001-of-00001.safetensors").is_file()
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()


def test_torch_files_are_compatible_with_pytorch(tmp_path: Path) -> None:
    """`torch.load` reads our files, and we read those of `torch.save`."""
    tensors = {"a": torch.randn(5, 7).bfloat16(), "b": torch.randn(3), "c": torch.zeros(0, 2)}
    stored = [
        (TensorSpec(n, t.dtype, tuple(t.shape)), [piece.clone for piece in t.split(2)])
        for n, t in tensors.items()
    ]
    write_torch_file(tmp_path / "ours.pt", stored)
    loaded = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    torch.save({**tensors, "rest": tensors["a"][2:]}, tmp_path / "theirs.pt")
    read = {tensor.name: tensor for tensor in read_torch_file(tmp_path / "theirs.pt").tensors}
    assert torch.equal(read["a"].rows(1, 4), tensors["a"][1:4])
    assert torch.equal(read["rest"].rows(), tensors["a"][2:])
