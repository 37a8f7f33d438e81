"""An export has the layout of its base and the answers of its run, or does not appear."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from molmo_tune.errors import UserError
from molmo_tune.export import export as export_module
from molmo_tune.export.export import export_run
from molmo_tune.export.files.checkpoint import Checkpoint, read_checkpoint
from molmo_tune.export.layouts.hub_layout import hub_names, hub_sources, to_hub
from molmo_tune.export.merge import write_layout
from molmo_tune.export.weight_updates import read_updates
from molmo_tune.model.adapters import add_adapter, trainable_parameters
from molmo_tune.model.loading import TINY_FOLDER, load_model
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.run import train
from tests.conftest import write_pond_recipe

PARTS: list[Any] = ["language", "connector", "vision"]


@pytest.fixture(scope="module")
def trained(pond: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained run with adapters in every part of the tiny base."""
    path = write_pond_recipe(pond, tmp_path_factory.mktemp("trained"))
    recipe = load_recipe(path, ["trainer.max_steps=2", "export.dtype=float32"])
    return train(recipe, Console(quiet=True)).run


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it to export and to break."""
    return RunFolder(Path(shutil.copytree(trained.root, tmp_path / "run")))


def _adapter(folder: Path, base: str, *, trained: bool, rslora: bool = False) -> None:
    model = add_adapter(
        load_model(base), method="lora", rank=4, alpha=8, dropout=0.0, targets=PARTS, rslora=rslora
    )
    if trained:
        torch.manual_seed(1)
        for name, parameter in trainable_parameters(model):
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(folder))


@pytest.mark.parametrize("name", ["molmo2-tiny-qwen", "molmo2-tiny-olmo"])
def test_hub_layout_matches_released_checkpoints(name: str, shared: Path) -> None:
    base = shared / "fixtures" / name
    released = load_file(base / "model.safetensors")
    model = load_model(str(base), dtype=torch.bfloat16)
    assert hub_names(model.config) == sorted(released)
    ours = to_hub(model.state_dict(), model.config)
    assert all(torch.equal(ours[name], released[name]) for name in released)


def test_hub_sources_is_none_for_native_names() -> None:
    assert hub_sources("model.transformer.blocks.3.mlp.ff_proj.weight") == (
        "model.language_model.layers.3.mlp.up_proj.weight",
        "model.language_model.layers.3.mlp.gate_proj.weight",
    )
    assert hub_sources("model.language_model.layers.3.mlp.up_proj.weight") is None


@pytest.mark.parametrize("name", ["molmo2-tiny-qwen", "molmo2-tiny-olmo"])
def test_untrained_adapter_reproduces_the_base(name: str, shared: Path, tmp_path: Path) -> None:
    base = shared / "fixtures" / name
    _adapter(tmp_path / "adapter", str(base), trained=False)
    out = tmp_path / "out"
    out.mkdir()
    written = write_layout(
        read_checkpoint(base), read_updates(tmp_path / "adapter"), out, "hub", None
    )
    assert written.merged
    ours, theirs = (load_file(f / "model.safetensors") for f in (out, base))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", ["molmo2-tiny-qwen", "molmo2-tiny-olmo"])
def test_merge_equals_pefts(name: str, rslora: bool, shared: Path, tmp_path: Path) -> None:
    """Our streamed merge in hub names equals PEFT's merge in native names, tensor by tensor."""
    from peft import PeftModel

    base = shared / "fixtures" / name
    _adapter(tmp_path / "adapter", str(base), trained=True, rslora=rslora)
    out = tmp_path / "out"
    out.mkdir()
    write_layout(
        read_checkpoint(base), read_updates(tmp_path / "adapter"), out, "hub", torch.float32
    )
    adapted = PeftModel.from_pretrained(load_model(str(base)), str(tmp_path / "adapter"))
    merged = adapted.merge_and_unload()
    theirs = to_hub(merged.state_dict(), merged.config)
    ours = load_file(out / "model.safetensors")
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in theirs) < 1e-6


@pytest.mark.slow
def test_export_loads_and_generates_without_molmo_tune(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "export"
    result = export_run(run, out)
    assert result.verification.max_logit_diff <= 1e-4
    assert result.verification.equal_answers == len(result.verification.answers) == 4
    assert len(result.tensors.merged) > 0
    for name in ("config.json", "processor_config.json", "chat_template.jinja", "README.md"):
        assert (out / name).is_file(), name
    config, base = (json.loads((f / "config.json").read_text()) for f in (out, TINY_FOLDER))
    assert config.pop("dtype") == "float32"
    base.pop("dtype")
    assert config == base
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, TINY_FOLDER))
    assert ours.keys() == theirs.keys()
    code = (
        "import sys; from transformers import AutoModelForImageTextToText as M, AutoProcessor as P;"
        f"m = M.from_pretrained({str(out)!r}); p = P.from_pretrained({str(out)!r});"
        "x = p.apply_chat_template([{'role': 'user', 'content': [{'type': 'text', 'text': 'Hi'}]}],"
        "add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors='pt');"
        "y = m.generate(**x, max_new_tokens=2, do_sample=False);"
        "sys.exit(0 if y.shape[1] > x['input_ids'].shape[1] else 3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bfloat16_export_is_rounded_once(run: RunFolder, tmp_path: Path) -> None:
    result = export_run(run, tmp_path / "export", dtype="bfloat16")
    assert result.verification.max_logit_diff <= 1e-4
    assert result.verification.rounding_diff > 0
    assert (
        load_file(tmp_path / "export" / "model.safetensors")["lm_head.weight"].dtype
        == torch.bfloat16
    )


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("lm_head.weight", "lm_head.weight changed but was not trained"),
        ("model.transformer.blocks.1.mlp.ff_proj.weight", "logits differ"),
    ],
)
def test_failed_verification_leaves_nothing(
    damaged: str, message: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(base: Checkpoint, updates: Any, out: Path, *rest: Any) -> Any:
        written = write_layout(base, updates, out, *rest)
        tensors = load_file(out / "model.safetensors")
        tensors[damaged][0] += 1.0
        save_file(tensors, str(out / "model.safetensors"), metadata={"format": "pt"})
        return written

    monkeypatch.setattr(export_module, "write_layout", damage)
    with pytest.raises(UserError, match=message):
        export_run(run, tmp_path / "place" / "export")
    assert list((tmp_path / "place").iterdir()) == []


def test_unusable_inputs_are_clear_errors(run: RunFolder, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(UserError, match="already exists"):
        export_run(run, taken)
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        export_run(RunFolder(tmp_path / "nowhere"), tmp_path / "out")
    config = run.adapter / "adapter_config.json"
    changed = json.loads(config.read_text()) | {"r": 7}
    config.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="expected rank 7"):
        export_run(run, tmp_path / "out")
    shutil.rmtree(run.adapter)
    with pytest.raises(UserError, match="a PEFT adapter folder"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapter_of_a_different_base_is_rejected(shared: Path, tmp_path: Path) -> None:
    _adapter(tmp_path / "adapter", str(shared / "fixtures" / "molmo2-tiny-qwen"), trained=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="trained"):
        write_layout(
            read_checkpoint(TINY_FOLDER),
            read_updates(tmp_path / "adapter"),
            tmp_path / "out",
            "hub",
            None,
        )
