"""4-bit and 8-bit exports load in Transformers and answer as the model quantized in memory."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from molmo_tune.cli import main
from molmo_tune.errors import UserError
from molmo_tune.export.export import export_run
from molmo_tune.export.quantized import int4_files, quantize
from molmo_tune.export.quantized.fp8_files import write_fp8
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.run_folder import RunFolder
from tests.export_runs import make_run, probe_logits
from tests.tiers import slow_except

KINDS = ("nf4", "int8", "w4a16", "fp8")
LAYERS = {"nf4": "Linear4bit", "int8": "Linear8bitLt", "w4a16": "Linear", "fp8": "Linear"}
KEPT = ("vision_tower", "multi_modal_projector", "embed_tokens", "lm_head", "norm")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("quantized") / "run", "tiny")


def _require_package(kind: str) -> None:
    if kind in ("w4a16", "fp8"):
        pytest.importorskip("compressed_tensors")


@pytest.mark.parametrize("kind", slow_except(KINDS, "nf4", "fp8"))
def test_transformers_loads_the_quantized_export(
    kind: Any, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _require_package(kind)
    out = tmp_path / "out"
    assert main(["export", str(run.root), "--out", str(out), "--quantize", kind]) == 0
    assert f"{kind}: reloaded; logits match" in capsys.readouterr().out
    report = json.loads((out / "export_report.json").read_text())
    assert report["max_logit_diff"] <= 1e-4  # of the merged checkpoint
    assert report["quantized"]["diff_to_quantized_in_memory"] == 0
    assert 0 < report["quantized"]["mean_logit_diff"] < 1
    assert f"decoder in {kind}" in (out / "README.md").read_text()
    assert not [path for path in out.iterdir() if path.is_dir()]
    assert str(tmp_path) not in (out / "config.json").read_text()
    model = AutoModelForImageTextToText.from_pretrained(out, dtype="auto")
    small = [m for n, m in model.named_modules() if n.endswith("_proj") and ".layers." in n]
    of_decoder = [m for m in small if type(m).__name__ == LAYERS[kind]]
    assert len(of_decoder) >= 7 * model.config.text_config.num_hidden_layers
    kept = [p for n, p in model.named_parameters() if any(part in n for part in KEPT)]
    assert {p.dtype for p in kept} == {torch.bfloat16}
    stored = load_file(out / "model.safetensors")
    narrow = {t.dtype for t in stored.values()} & {
        torch.uint8,
        torch.int8,
        torch.int32,
        torch.float8_e4m3fn,
    }
    assert narrow


@pytest.mark.parametrize("name", ["molmo2-tiny-qwen", "molmo2-tiny-olmo"])
def test_fp8_rounds_the_decoder_row_by_row(name: str, shared: Path, tmp_path: Path) -> None:
    """Values times scales are within half an e4m3 step of the base; all else is unchanged."""
    _require_package("fp8")
    from molmo_tune.export.files.checkpoint import read_checkpoint

    base = shared / "fixtures" / name
    write_fp8(read_checkpoint(base), tmp_path)
    ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path, base))
    scaled = {n for n in theirs if f"{n}_scale" in ours}
    assert {n.rsplit(".", 2)[1] for n in scaled} == {"att_proj", "attn_out", "ff_proj", "ff_out"}
    assert ours.keys() == theirs.keys() | {f"{n}_scale" for n in scaled}
    for n, tensor in theirs.items():
        if n not in scaled:
            assert torch.equal(ours[n], tensor)
            continue
        assert ours[n].dtype == torch.float8_e4m3fn
        back = ours[n].float() * ours[f"{n}_scale"].float()
        largest = tensor.float().abs().amax(1, keepdim=True)
        step = torch.maximum(tensor.float().abs() / 8, largest / 448 / 64)
        assert ((back - tensor.float()).abs() <= 0.51 * step + 0.005 * tensor.float().abs()).all()


@pytest.mark.parametrize(
    ("widths", "size"), [((4096, 12288, 32, 128), 128), ((96, 256, 6, 16), 32)]
)
def test_largest_group_size_that_divides_the_widths_is_used(
    widths: tuple[int, ...], size: int
) -> None:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "head_dim")
    text = SimpleNamespace(**dict(zip(names, widths, strict=True)))
    model = SimpleNamespace(config=SimpleNamespace(text_config=text))
    assert int4_files._group_size(model) == size
    text.hidden_size = 100
    with pytest.raises(UserError, match=r"matrices of 100, .* multiples of 32.*; use fp8"):
        int4_files._group_size(model)


@pytest.mark.slow
def test_w4a16_rounds_the_decoder_in_groups(run: RunFolder, tmp_path: Path) -> None:
    """Unpacked here, values times scales are within half a step of the merged model."""
    _require_package("w4a16")
    export_run(run, tmp_path / "whole", dtype="bfloat16", layout="native")
    export_run(run, tmp_path / "small", quantize="w4a16")
    whole, small = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "small"))
    packed = [n.removesuffix("_packed") for n in small if n.endswith("weight_packed")]
    assert len(packed) >= 7
    for name in packed:
        rows, columns = small[f"{name}_shape"].tolist()
        shifts = torch.arange(0, 32, 4, dtype=torch.int32)
        numbers = (small[f"{name}_packed"][..., None] >> shifts & 15).flatten(1)[:, :columns] - 8
        scale = small[f"{name}_scale"].float()
        steps = scale.repeat_interleave(columns // scale.shape[1], dim=1)
        assert numbers.shape == (rows, columns)
        away = (numbers * steps - whole[name].float()).abs()
        assert (away <= 0.51 * steps + 0.01 * whole[name].float().abs()).all()


@pytest.mark.parametrize("kind", slow_except(KINDS, "w4a16"))
def test_wrong_value_in_the_files_is_noticed(
    kind: Any, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _require_package(kind)
    write = quantize._write

    def damage(merged: Path, out: Path, *rest: Any) -> None:
        write(merged, out, *rest)
        tensors = load_file(out / "model.safetensors")
        ends = ("up_proj.weight", "up_proj.weight_packed", "ff_proj.weight")
        name = next(n for n in tensors if (n.endswith(ends) and "layers" in n) or "ff_proj" in n)
        tensors[name] = tensors[name].flip(0)
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(quantize, "_write", damage)
    with pytest.raises(UserError, match="from those of quantization in memory"):
        export_run(run, tmp_path / "place" / "out", quantize=kind)
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantize", "nf4", "--layout", "hub"], "hub with --quantize nf4; expected native"),
        (["--quantize", "int8", "--dtype", "float32"], "float32 with --quantize int8"),
        (["--quantize", "int8", "--layout", "adapter"], "int8 with a run and --layout adapter"),
    ],
)
def test_conflicting_options_are_one_error(
    options: list[str],
    message: str,
    run: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["export", str(run.root), "--out", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "package"), [("fp8", "compressed"), ("w4a16", "compressed"), ("nf4", "bitsandbytes")]
)
def test_missing_package_is_named(
    kind: Any, package: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=package):
        export_run(run, tmp_path / "out", quantize=kind)


def test_checkpoint_without_a_run_is_not_quantized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from molmo_tune.model.loading import TINY_FOLDER

    out = str(tmp_path / "out")
    assert main(["export", str(TINY_FOLDER), "--out", out, "--quantize", "nf4"]) == 1
    assert "nf4 with a checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_quantized_logits_correlate_with_unquantized_ones(run: RunFolder, tmp_path: Path) -> None:
    """A wrong scale would destroy the correlation."""
    export_run(run, tmp_path / "whole", dtype="bfloat16")
    export_run(run, tmp_path / "small", quantize="int8")
    processor = load_processor("tiny")
    models = (load_model(str(tmp_path / n)) for n in ("whole", "small"))  # float32 if possible
    whole, small = (probe_logits(m, processor, None).float().flatten() for m in models)
    assert float(torch.corrcoef(torch.stack([whole, small]))[0, 1]) > 0.99
