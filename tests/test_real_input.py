"""A real label export and clip, the released layout, the real tokenizer: start to end."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from safetensors import safe_open

from molmo_tune.export.export import export_run
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.training.run import train

RECIPE = Path(__file__).parent / "recipes" / "label_studio_released_layout.yaml"
LABELS = "samples/label_studio_video/mlbackend"


@pytest.mark.slow
def test_label_studio_to_a_released_layout_export(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shared / "fixtures" / "molmo2-tiny-qwen"
    recipe = load_recipe(
        RECIPE,
        [
            f"model.name={base}",
            f"data.train.0.path={shared / LABELS / 'opossum_snow_short_1.json'}",
            f"data.train.0.media={shared / LABELS}",
            f"output.dir={tmp_path / 'run'}",
        ],
    )
    result = train(recipe, Console(quiet=True))
    losses = [loss for _, loss in result.losses]
    assert losses[-1] < losses[0]
    exported = export_run(result.run, tmp_path / "export")
    assert exported.proof.max_logit_diff <= 1e-4
    with (
        safe_open(tmp_path / "export" / "model.safetensors", "pt") as ours,
        safe_open(base / "model.safetensors", "pt") as theirs,
    ):
        assert sorted(ours.keys()) == sorted(theirs.keys())
        for name in theirs.keys():  # noqa: SIM118
            assert ours.get_slice(name).get_shape() == theirs.get_slice(name).get_shape()
