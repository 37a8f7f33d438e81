"""Broken inputs of an export: one clear error each, nothing left behind; and what is counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from molmo_tune.cli import main
from molmo_tune.errors import UserError
from molmo_tune.export.export import REPORT, export_run
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.layouts.vllm_requirements import (
    CONFIG_FIELDS,
    PROCESSOR_FIELDS,
    hf_overrides,
    image_patch_row,
    unmet,
)
from molmo_tune.export.merge import write_layout
from molmo_tune.export.verification.tensor_report import compare_tensors
from molmo_tune.export.weight_updates import NoUpdates, read_updates
from molmo_tune.model.loading import TINY_FOLDER
from molmo_tune.run_folder import RunFolder
from tests.export_runs import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base of its own and a run on it."""
    place = tmp_path_factory.mktemp("broken")
    shutil.copytree(TINY_FOLDER, place / "base")
    make_run(place / "run", str(place / "base"))
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it to break; the run names the copy of the base."""
    shutil.copytree(made, tmp_path / "place")
    recipe = tmp_path / "place" / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(made), str(tmp_path / "place")))
    return tmp_path / "place"


def _edit(file: Path, change: Callable[[Any], Any]) -> None:
    contents = json.loads(file.read_text())
    change(contents)
    file.write_text(json.dumps(contents))


def _edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def _other_weights(place: Path) -> None:
    """A base of the same shapes: nothing but its numbers says that it is another."""
    _edit_tensors(place / "base" / "model.safetensors", lambda t: t["lm_head.weight"].mul_(-1))


def _other_shapes(place: Path) -> None:
    (place / "run" / "base.json").unlink()  # a run of before bases were recorded
    for half, shape in (("A", (4, 64)), ("B", (128, 4))):
        name = f"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{half}.weight"
        file = place / "run" / "adapter" / "adapter_model.safetensors"
        _edit_tensors(file, lambda t, n=name, s=shape: t.__setitem__(n, torch.ones(s)))


def _missing_shard(place: Path) -> None:
    weights = place / "base" / "model.safetensors"
    names = dict.fromkeys(load_file(weights), "model-00001-of-00002.safetensors")
    names["lm_head.weight"] = "model-00002-of-00002.safetensors"
    weights.rename(place / "base" / "model-00001-of-00002.safetensors")
    index = place / "base" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))


def _cut_shard(place: Path) -> None:
    weights = place / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _wrong_rank(place: Path) -> None:
    _edit(place / "run" / "adapter" / "adapter_config.json", lambda c: c.update(r=7))


def _half_a_pair(place: Path) -> None:
    file = place / "run" / "adapter" / "adapter_model.safetensors"
    _edit_tensors(file, lambda t: t.pop(next(n for n in t if "lora_B" in n)))


def _not_finite(place: Path) -> None:
    file = place / "run" / "adapter" / "adapter_model.safetensors"
    _edit_tensors(file, lambda t: next(iter(t.values())).fill_(torch.nan))


def _foreign_tokenizer(place: Path) -> None:
    """Two words have changed places: every text still encodes, into other ids."""

    def swap(contents: dict[str, Any]) -> None:
        vocabulary = contents["model"]["vocab"]
        a, b = list(vocabulary)[-2:]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]

    _edit(place / "base" / "tokenizer.json", swap)


def _foreign_template(place: Path) -> None:
    file = place / "base" / "chat_template.jinja"
    file.write_text(file.read_text() + "{# another #}")


def _no_processor(place: Path) -> None:
    (place / "base" / "preprocessor_config.json").unlink()


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (_other_weights, "the base itself is not the one that was trained on"),
    (_other_shapes, "q_proj.weight is .* what was trained is .*the base that was trained on"),
    (_missing_shard, "names the shard model-00002-of-00002.safetensors, which is missing"),
    (_cut_shard, "bytes long; expected .*; download it again"),
    (_wrong_rank, "rank 4; expected rank 7"),
    (_half_a_pair, "without its partner"),
    (_not_finite, "holds NaN or infinity"),
    (_foreign_tokenizer, "the tokenizer of the base is not the one that was trained on"),
    (_foreign_template, "the chat template of the base is not the one"),
    (_no_processor, "has no usable processor files"),
]


@pytest.mark.parametrize(
    ("break_it", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.parametrize("layout", ["hub", "adapter", "vllm-adapter"])
def test_a_broken_input_is_told_and_leaves_nothing(
    layout: str,
    break_it: Callable[[Path], None],
    message: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    break_it(place)
    out = place / "exports" / "out"
    assert main(["export", str(place / "run"), "--out", str(out), "--layout", layout]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert len(said.strip().splitlines()) == 1
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_an_unbroken_copy_is_exported(place: Path) -> None:
    assert main(["export", str(place / "run"), "--out", str(place / "out")]) == 0
    report = json.loads((place / "out" / "export_report.json").read_text())
    assert report["base_recorded"]
    assert report["base"] == "base"
    assert str(place) not in (place / "out" / "README.md").read_text()


def test_an_export_without_its_adapter_is_found(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that forgot the adapter writes a perfect copy of the base."""
    from molmo_tune.export import export as export_module

    def forget(base: Any, changes: Any, out: Path, *rest: Any) -> Any:
        return write_layout(base, NoUpdates(), out, *rest)

    monkeypatch.setattr(export_module, "write_layout", forget)
    with pytest.raises(UserError, match="nothing of the training arrived"):
        export_run(RunFolder(place / "run"), place / "out")
    assert not (place / "out").exists()


def test_an_untrained_adapter_is_told_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "tiny", trained=False)
    result = export_run(run, tmp_path / "out")
    assert result.account.merged == ()
    assert len(result.account.lost) == 16  # four fused tensors in each of four layers
    ours, theirs = (
        (folder / "model.safetensors").read_bytes() for folder in (tmp_path / "out", TINY_FOLDER)
    )
    assert ours == theirs


def test_a_small_update_is_lost_in_sixteen_bits_and_counted(tmp_path: Path) -> None:
    """In bfloat16 an update of a thousandth of a weight's own rounding leaves no trace."""
    run = make_run(tmp_path / "run", "tiny")
    file = run.adapter / "adapter_model.safetensors"
    _edit_tensors(file, lambda t: [t[n].mul_(1e-6) for n in t if "lora_B" in n and ".0." in n])
    base, changes = read_checkpoint(TINY_FOLDER), read_updates(run.adapter)
    found = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        out = tmp_path / name
        shutil.copytree(TINY_FOLDER, out, ignore=shutil.ignore_patterns("*.safetensors"))
        write_layout(base, changes, out, "hub", dtype)
        found[name] = compare_tensors(base, read_checkpoint(out), changes, dtype)
    assert len(found["float32"].merged) == 16
    assert found["float32"].lost == ()
    assert {name.split(".")[3] for name in found["bfloat16"].lost} == {"0"}


@pytest.mark.parametrize("name", ["molmo2-tiny-qwen", "molmo2-tiny-olmo"])
def test_the_contract_of_vllm(name: str, shared: Path, tmp_path: Path) -> None:
    """Released files keep it but for the remote code, which the fixtures lack."""
    base = tmp_path / "base"
    shutil.copytree(shared / "fixtures" / name, base)
    files = ["remote code configuration_molmo2.py", "remote code modeling_molmo2.py"]
    assert unmet(base) == files
    for file in ("configuration_molmo2.py", "modeling_molmo2.py"):
        (base / file).touch()
    assert unmet(base) == []
    wanted = []
    for section in ("vit_config", "adapter_config"):  # a field that no shape hangs on
        assert "hidden_act" in CONFIG_FIELDS[section]
        _edit(base / "config.json", lambda c, s=section: c[s].pop("hidden_act"))
        wanted.append(f"config.json: {section}.hidden_act")
    for file, fields in PROCESSOR_FIELDS.items():
        _edit(base / file, lambda c, f=fields[0]: c.pop(f))
        wanted.append(f"{file}: {fields[0]}")
    assert [one for one in unmet(base) if not one.startswith("tensor")] == wanted


@pytest.mark.slow
def test_what_vllm_must_be_told(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames stand between <im_start> and <im_end> here; vLLM would embed others (compare_vllm)."""
    base = tmp_path / "base"
    shutil.copytree(shared / "fixtures" / "molmo2-tiny-qwen", base)
    told = {"frame_start_token_id": 151936, "frame_end_token_id": 151937}
    assert hf_overrides(base) == told
    run = make_run(tmp_path / "run", str(base))
    for layout in ("hub", "vllm-adapter"):
        out = tmp_path / layout
        assert main(["export", str(run.root), "--layout", layout, "--out", str(out)]) == 0
        assert f"vLLM needs --hf-overrides '{json.dumps(told)}'" in capsys.readouterr().out
        assert json.loads((out / REPORT).read_text())["vllm"]["hf_overrides"] == told
    card = (tmp_path / "vllm-adapter" / "README.md").read_text()
    assert f"--hf-overrides '{json.dumps(told)}'" in card
    _edit(base / "processor_config.json", lambda c: c.update(use_frame_special_tokens=True))
    assert hf_overrides(base) == {}


@pytest.mark.slow
def test_how_much_vllm_leaves_out(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(shared / "fixtures" / "molmo2-tiny-qwen", base)
    weights = load_file(base / "model.safetensors")
    table = weights["model.transformer.wte.embedding"]
    extra = weights["model.transformer.wte.new_embedding"]
    usual = table[:64].float().norm(dim=1).median()
    for length, said in ((0.0, False), (0.25, True)):
        extra[2] = torch.zeros_like(extra[2])
        extra[2, 0] = length * usual
        save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
        assert image_patch_row(base) == pytest.approx(length, abs=1e-3)
        out = tmp_path / f"native{length}"
        assert main(["export", str(base), "--layout", "hub", "--out", str(out)]) == 0
        found = "vLLM ignores the <im_patch> embedding, with norm 0.25 here"
        assert (found in capsys.readouterr().out) == said
