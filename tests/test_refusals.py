"""Checkpoints, adapters and samples that cannot be used are refused where they are loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from molmo_tune.training.module import MolmoModule
from safetensors.torch import load_file, save_file

from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.sampler import ItemSampler
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.errors import UserError
from molmo_tune.evaluation.answer_points import points_of
from molmo_tune.evaluation.truth import clip_of, region_of
from molmo_tune.labels.sample import Box, Keypoint, Keypoints
from molmo_tune.model.adapters import add_adapter, load_adapter, save_adapter
from molmo_tune.model.loading import (
    TINY_FOLDER,
    checkpoint_config,
    checkpoint_source,
    load_model,
    load_processor,
    model_from_tensors,
)
from molmo_tune.model.quantization import require_quantized
from molmo_tune.model.resume_adapter import continue_adapter
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.training.optimizers import OptimSettings
from tests.drawn_lora import drawn_lora

WEIGHTS = "model.safetensors"


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the tiny base to break."""
    return Path(shutil.copytree(TINY_FOLDER, tmp_path / "checkpoint"))


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./no/folder", "~/nowhere", "word", "a/b/c"])
def test_names_that_are_neither_folder_nor_hub_id(name: str) -> None:
    with pytest.raises(UserError, match=r"^model\.name: "):
        checkpoint_source(name)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        checkpoint_source(str(tmp_path))


def test_a_config_that_is_not_json_or_of_another_model(checkpoint: Path) -> None:
    edit_config(checkpoint, model_type="llama")
    with pytest.raises(UserError, match="'llama'"):
        checkpoint_config(str(checkpoint))
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(UserError, match="no checkpoint found"):
        checkpoint_config(str(checkpoint))


def test_weights_that_are_missing_misshapen_or_broken(checkpoint: Path) -> None:
    edit_tensors(checkpoint / WEIGHTS, lambda t: t.pop("model.transformer.ln_f.weight"))
    with pytest.raises(UserError, match=r"1 tensors .*norm\.weight"):
        load_model(str(checkpoint))
    (checkpoint / WEIGHTS).write_bytes((TINY_FOLDER / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(UserError, match=f"^{checkpoint}: does not load"):
        load_model(str(checkpoint))


def test_a_checkpoint_without_a_processor(checkpoint: Path) -> None:
    for file in checkpoint.iterdir():
        if file.name not in ("config.json", WEIGHTS):
            file.unlink()
    with pytest.raises(UserError, match=f"^{checkpoint}: .*processor"):
        load_processor(str(checkpoint))


def test_tensors_in_memory_must_be_the_models() -> None:
    config, tensors = checkpoint_config("tiny"), load_model("tiny").state_dict()
    first = next(iter(tensors))
    with pytest.raises(ValueError, match="Error"):
        model_from_tensors(config, {n: t for n, t in tensors.items() if n != first})
    assert not any(p.requires_grad for p in model_from_tensors(config, tensors).parameters())


def test_layers_that_a_library_did_not_quantize_are_noticed() -> None:
    with pytest.raises(RuntimeError, match=r"Linear, not as Linear4bit"):
        require_quantized(load_model("tiny"), "nf4", torch.float32)
    with pytest.raises(RuntimeError, match=r"computes in torch\.float32"):
        require_quantized(load_model("tiny", quantize="nf4"), "nf4", torch.bfloat16)


# --- adapters ------------------------------------------------------------------------------------


def test_adapters_that_do_not_fit_the_base(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        load_adapter(load_model("tiny"), tmp_path)
    save_adapter(drawn_lora(load_model("tiny"), ["language"]), tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_model.safetensors"
    edit_tensors(file, lambda t: t.update({n: torch.cat([t[n], t[n]]) for n in [*t][:1]}))
    with pytest.raises(UserError, match=f"^{tmp_path / 'lora'}: "):
        load_adapter(load_model("tiny"), tmp_path / "lora")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=f"^{tmp_path / 'lora'}: "):
        load_adapter(load_model("tiny"), tmp_path / "lora")


def test_full_weights_that_do_not_fit_the_base(tmp_path: Path) -> None:
    full: dict[str, Any] = {"method": "full", "rank": 1, "alpha": 1, "targets": ["connector"]}
    save_adapter(add_adapter(load_model("tiny"), dropout=0.0, **full), tmp_path)
    with pytest.raises(UserError, match=f"^{tmp_path}: "):
        continue_adapter(load_model("tiny"), tmp_path, **full | {"targets": ["vision"]})
    (file,) = tmp_path.glob("*.safetensors")
    edit_tensors(file, lambda t: t.update({n: t[n][:1] for n in [*t][:1]}))
    with pytest.raises(UserError, match=f"^{file}: "):
        load_adapter(load_model("tiny"), tmp_path)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=f"^{file}: "):
        load_adapter(load_model("tiny"), tmp_path)


def test_a_training_checkpoint_of_another_run() -> None:
    settings = OptimSettings(lr=1e-3, max_steps=1, part_lr={})
    module = MolmoModule(drawn_lora(load_model("tiny"), ["language"]), settings)
    saved: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(saved)
    module.on_load_checkpoint(saved)
    saved["state_dict"].popitem()
    with pytest.raises(ValueError, match="1 differ"):
        module.on_load_checkpoint(saved)


# --- samples -------------------------------------------------------------------------------------


@pytest.fixture
def items(pond_recipe: Path) -> list[Item]:
    recipe = load_recipe(pond_recipe)
    return read_items(recipe.data.train, recipe, load_processor("tiny"))[0]


def test_encoded_samples_stay_in_memory_as_far_as_they_fit(
    items: list[Item], pond_recipe: Path
) -> None:
    processor, limits = load_processor("tiny"), limits_of(load_recipe(pond_recipe))
    size = TrainingSet(items, processor, limits)[0].patches.nbytes
    kept = TrainingSet(items, processor, limits, cache_bytes=size)
    first, again = kept[0], kept[0]
    assert np.array_equal(first.patches, again.patches)
    assert [[one.origin for one in sample.openings] for sample in (first, again)] == [
        ["file"],
        ["memory"],
    ]
    assert [kept[1].openings[0].origin for _ in range(2)] == ["file", "file"]


def test_items_in_file_order_without_shuffling() -> None:
    order = ItemSampler(4, seed=1, shuffle=False)
    assert [order.item_at(place) for place in range(6)] == [0, 1, 2, 3, 0, 1]


def test_points_of_answers_about_no_media() -> None:
    text = SimpleNamespace(sampled=None, sizes_wh=(), sample=SimpleNamespace(id="a"))
    assert points_of(cast(Any, text), '<points coords="1 1 100 200">koi</points>') == []
    with pytest.raises(ValueError, match="no video"):
        clip_of(cast(Any, text))


def test_keypoints_are_hit_on_their_extent_or_on_the_named_point() -> None:
    hidden = Keypoint("ear", (6.0, 5.0), visible=False)
    pose = Keypoints((Keypoint("nose", (4.0, 5.0)), hidden), Box((0.0, 0.0, 9.0, 9.0)))
    assert region_of(pose, (20, 10)).contains((8.0, 8.0))
    assert not region_of(pose, (20, 10), "keypoint:nose").contains((8.0, 8.0))
    with pytest.raises(ValueError, match="no point"):
        region_of(pose, (20, 10), "keypoint:ear")
