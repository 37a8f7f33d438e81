"""Broken inputs of an export give one clear error each and leave nothing behind."""

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
from molmo_tune.export.export import export_run
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.merge import write_layout
from molmo_tune.export.report import REPORT_FILE
from molmo_tune.export.verification.tensor_report import compare_tensors
from molmo_tune.export.verification.vllm_requirements import (
    CONFIG_FIELDS,
    PROCESSOR_FIELDS,
    hf_overrides,
    image_patch_row,
    unmet,
)
from molmo_tune.export.weight_updates import NoUpdates, read_updates
from molmo_tune.model.loading import TINY_FOLDER
from molmo_tune.run_folder import RunFolder
from tests.export_runs import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and a run on it."""
    place = tmp_path_factory.mktemp("broken")
    shutil.copytree(TINY_FOLDER, place / "base")
    make_run(place / "run", str(place / "base"))
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder to break; its run refers to its base."""
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
    """A base that differs only in its weights."""
    _edit_tensors(place / "base" / "model.safetensors", lambda t: t["lm_head.weight"].mul_(-1))


def _other_shapes(place: Path) -> None:
    (place / "run" / "base.json").unlink()  # as in a run before bases were recorded
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


def _truncated_shard(place: Path) -> None:
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
    """Swap two tokens: every text still encodes, but to different ids."""

    def swap(contents: dict[str, Any]) -> None:
        vocabulary = contents["model"]["vocab"]
        a, b = list(vocabulary)[-2:]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]

    _edit(place / "base" / "tokenizer.json", swap)


def _foreign_template(place: Path) -> None:
    file = place / "base" / "chat_template.jinja"
    file.write_text(file.read_text() + "{# different #}")


def _no_processor(place: Path) -> None:
    (place / "base" / "preprocessor_config.json").unlink()


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (_other_weights, "the base itself .*trained on"),
    (_other_shapes, "q_proj.weight has shape .*the trained one .*; expected the base of the run"),
    (_missing_shard, "shard model-00002-of-00002.safetensors is missing; download it again"),
    (_truncated_shard, "has [0-9,]+ bytes; expected [0-9,]+ bytes; download it again"),
    (_wrong_rank, "rank 4; expected rank 7"),
    (_half_a_pair, "without its partner"),
    (_not_finite, "contains NaN or infinity"),
    (_foreign_tokenizer, "the tokenizer of the base .*trained on"),
    (_foreign_template, "the chat template of the base .*trained on"),
    (_no_processor, "has no usable processor files"),
]


@pytest.mark.parametrize(
    ("break_it", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.parametrize("layout", ["hub", "adapter", "vllm-adapter"])
def test_broken_input_is_one_error_and_leaves_nothing(
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
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_unbroken_copy_is_exported(place: Path) -> None:
    assert main(["export", str(place / "run"), "--out", str(place / "out")]) == 0
    report = json.loads((place / "out" / "export_report.json").read_text())
    assert report["base_recorded"]
    assert report["base"] == "base"
    assert str(place) not in (place / "out" / "README.md").read_text()


def test_merge_without_the_adapter_is_noticed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a merge writes an exact copy of the base."""
    from molmo_tune.export import export as export_module

    def ignore(base: Any, updates: Any, out: Path, *rest: Any) -> Any:
        return write_layout(base, NoUpdates(), out, *rest)

    monkeypatch.setattr(export_module, "write_layout", ignore)
    with pytest.raises(UserError, match="no update survived"):
        export_run(RunFolder(place / "run"), place / "out")
    assert not (place / "out").exists()


def test_untrained_adapter_is_exported_as_the_base(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "tiny", trained=False)
    result = export_run(run, tmp_path / "out")
    assert result.tensors.merged == ()
    assert len(result.tensors.unchanged_trained) == 16  # four fused tensors in each of four layers
    ours, theirs = (
        (folder / "model.safetensors").read_bytes() for folder in (tmp_path / "out", TINY_FOLDER)
    )
    assert ours == theirs


def test_update_too_small_for_bfloat16_is_counted(tmp_path: Path) -> None:
    """An update of a thousandth of the rounding step vanishes in bfloat16."""
    run = make_run(tmp_path / "run", "tiny")
    file = run.adapter / "adapter_model.safetensors"
    _edit_tensors(file, lambda t: [t[n].mul_(1e-6) for n in t if "lora_B" in n and ".0." in n])
    base, updates = read_checkpoint(TINY_FOLDER), read_updates(run.adapter)
    found = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        out = tmp_path / name
        shutil.copytree(TINY_FOLDER, out, ignore=shutil.ignore_patterns("*.safetensors"))
        write_layout(base, updates, out, "hub", dtype)
        found[name] = compare_tensors(base, read_checkpoint(out), updates, dtype)
    assert len(found["float32"].merged) == 16
    assert found["float32"].unchanged_trained == ()
    assert {name.split(".")[3] for name in found["bfloat16"].unchanged_trained} == {"0"}


@pytest.mark.parametrize("name", ["molmo2-tiny-qwen", "molmo2-tiny-olmo"])
def test_missing_vllm_fields_are_listed(name: str, shared: Path, tmp_path: Path) -> None:
    """The fixtures have everything that vLLM needs except remote code."""
    base = tmp_path / "base"
    shutil.copytree(shared / "fixtures" / name, base)
    files = ["remote code configuration_molmo2.py", "remote code modeling_molmo2.py"]
    assert unmet(base) == files
    for file in ("configuration_molmo2.py", "modeling_molmo2.py"):
        (base / file).touch()
    assert unmet(base) == []
    expected = []
    for section in ("vit_config", "adapter_config"):  # a field that does not affect shapes
        assert "hidden_act" in CONFIG_FIELDS[section]
        _edit(base / "config.json", lambda c, s=section: c[s].pop("hidden_act"))
        expected.append(f"config.json: {section}.hidden_act")
    for file, fields in PROCESSOR_FIELDS.items():
        _edit(base / file, lambda c, f=fields[0]: c.pop(f))
        expected.append(f"{file}: {fields[0]}")
    assert [one for one in unmet(base) if not one.startswith("tensor")] == expected


@pytest.mark.slow
def test_hf_overrides_for_vllm_are_reported(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames are between <im_start> and <im_end> here; vLLM embeds other tokens (compare_vllm)."""
    base = tmp_path / "base"
    shutil.copytree(shared / "fixtures" / "molmo2-tiny-qwen", base)
    overrides = {"frame_start_token_id": 151936, "frame_end_token_id": 151937}
    assert hf_overrides(base) == overrides
    run = make_run(tmp_path / "run", str(base))
    for layout in ("hub", "vllm-adapter"):
        out = tmp_path / layout
        assert main(["export", str(run.root), "--layout", layout, "--out", str(out)]) == 0
        assert f"vLLM needs --hf-overrides '{json.dumps(overrides)}'" in capsys.readouterr().out
        assert json.loads((out / REPORT_FILE).read_text())["vllm"]["hf_overrides"] == overrides
    card = (tmp_path / "vllm-adapter" / "README.md").read_text()
    assert f"--hf-overrides '{json.dumps(overrides)}'" in card
    _edit(base / "processor_config.json", lambda c: c.update(use_frame_special_tokens=True))
    assert hf_overrides(base) == {}


@pytest.mark.slow
def test_image_patch_norm_that_vllm_ignores_is_reported(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(shared / "fixtures" / "molmo2-tiny-qwen", base)
    weights = load_file(base / "model.safetensors")
    table = weights["model.transformer.wte.embedding"]
    extra = weights["model.transformer.wte.new_embedding"]
    median = table[:64].float().norm(dim=1).median()
    for norm, is_reported in ((0.0, False), (0.25, True)):
        extra[2] = torch.zeros_like(extra[2])
        extra[2, 0] = norm * median
        save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
        assert image_patch_row(base) == pytest.approx(norm, abs=1e-3)
        out = tmp_path / f"native{norm}"
        assert main(["export", str(base), "--layout", "hub", "--out", str(out)]) == 0
        found = "vLLM ignores the <im_patch> embedding, with norm 0.25 here"
        assert (found in capsys.readouterr().out) == is_reported
