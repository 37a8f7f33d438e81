"""Forecasts compared with a full-size model on a GPU: at the peak, and between two steps.

Run on an H200 (PyTorch 2.11, `benchmarks/results`). Random weights in the shapes of the 4B take as
much memory as the released ones; rows come from the forecast. The forecast counts live storages and
the allocator live blocks, so they differ by little. The memory that the allocator reserves beyond
that is printed, because `planning.gpus` assumes a margin for it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from molmo_tune.model.released_configs import random_model, released_config
from molmo_tune.planning.forecast import definite, forecast
from molmo_tune.planning.gpus import needed_bytes
from molmo_tune.planning.workload import count_rows
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.gradient_clipping import clip_components
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import build_optimizer, optim_settings
from molmo_tune.training.prepare_model import prepare_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CLOSE = 0.05
SETTINGS = (
    ("trainer.gradient_checkpointing=true",),
    ("data.max_tokens=2048", "video.max_frames=16"),
    ("data.max_tokens=2048", "video.max_frames=16", "model.attention=sdpa"),
    ("data.max_tokens=2048", "video.max_frames=16", "adapter.targets=[language,connector,vision]"),
)


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_measured_memory_matches_the_forecast(settings: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "model: {name: allenai/Molmo2-4B}\n"
        "data: {train: [{format: cvat_video, path: not/there}], max_tokens: 8192}\n"
        f"video: {{max_frames: 64}}\noutput: {{dir: {tmp_path / 'run'}}}\n",
        encoding="utf-8",
    )
    recipe = load_recipe(file, settings)
    cost = forecast(recipe, only_largest=True).costs[0]
    if needed_bytes(cost.peak_bytes) > torch.cuda.get_device_properties(0).total_memory:
        pytest.skip(f"needs {cost.peak_bytes / 1e9:.0f} GB")
    resting, peak, reserved = measured(definite(recipe, "cuda"))
    print(
        f"resting {resting / 1e9:.2f} GB, forecast {sum(cost.resting_bytes.values()) / 1e9:.2f}; "
        f"peak {peak / 1e9:.2f} GB, forecast {cost.peak_bytes / 1e9:.2f}; "
        f"reserved {reserved / 1e9:.2f}"
    )
    assert resting == pytest.approx(sum(cost.resting_bytes.values()), rel=CLOSE)
    assert peak == pytest.approx(cost.peak_bytes, rel=CLOSE)
    assert reserved < needed_bytes(cost.peak_bytes)


def measured(recipe: Recipe) -> tuple[int, int, int]:
    """Bytes between two real steps, at the peak, and reserved by the allocator."""
    torch.cuda.empty_cache()
    config = released_config("4B")
    model = prepare_model(random_model("4B", dtype=torch.bfloat16, device="cuda"), recipe)
    module = MolmoModule(model.cuda(), optim_settings(recipe))
    optimizer = build_optimizer(model, module.optim_settings)
    row, precision = count_rows(recipe, config).rows[0], MixedPrecision("bf16-mixed", "cuda")
    on_cpu = row.batch(config, 1, torch.zeros(row.patches_shape(config, 1)))

    def step() -> int:
        batch = on_cpu.to("cuda")
        for number in range(2):
            with precision.forward_context():
                loss = module.training_step(batch, number)
            loss.backward()
            del loss
        clip_components(optimizer, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        del batch
        return torch.cuda.memory_allocated()

    resting = step()
    torch.cuda.reset_peak_memory_stats()
    step()
    return resting, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
