"""Several processes train as one: over gloo on the CPU, with DDP and with FSDP.

In each test Lightning starts the processes, as for a user's command.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from molmo_tune.encoding.collation import collate
from molmo_tune.errors import UserError
from molmo_tune.recipe.loader import load_recipe
from tests.test_training import gradients_of, samples, worst_difference

ROOT = Path(__file__).parent.parent
GRADIENTS = """
import sys, torch, lightning as L
from torch.distributed.tensor import DTensor
from molmo_tune.model.adapters import trainable_parameters
from molmo_tune.training.fsdp import sharding_strategy
from tests.test_training import Observed, SETTINGS, adapted_model, collate, samples
out, strategy = sys.argv[1:]
rank_batches = [[0, 1], [2, 3]]  # only the second process gets a video
class Data(L.LightningDataModule):
    def train_dataloader(self):
        encoded = samples()
        mine = [collate([encoded[i]], pad_id=0) for i in rank_batches[self.trainer.global_rank]]
        return torch.utils.data.DataLoader(mine, batch_size=None)
class Gathered(Observed):
    def configure_gradient_clipping(self, optimizer, *_, **__):
        named = [(n, p.grad) for n, p in trainable_parameters(self)]
        self.split = sum(isinstance(g, DTensor) for _, g in named)
        self.gradients = {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in named}
trainer = L.Trainer(max_steps=1, accumulate_grad_batches=2, accelerator="cpu", devices=2,
    strategy=sharding_strategy(2) if strategy == "fsdp" else strategy, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    use_distributed_sampler=False)
module = Gathered(adapted_model(), SETTINGS)
trainer.fit(module, Data())
assert (module.split > 0) == (strategy == "fsdp")
if trainer.is_global_zero:
    torch.save(module.gradients, out)
"""


def run_python(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_gradient_of_one_big_batch(strategy: str, tmp_path: Path) -> None:
    """The weights of all devices and micro-batches are summed before anything is divided."""
    script, result = tmp_path / "gradients.py", tmp_path / "gradients.pt"
    script.write_text(GRADIENTS)
    run_python(str(script), str(result), strategy)
    whole = gradients_of([collate(samples(), pad_id=0)], accumulate=1)
    assert worst_difference(torch.load(result), whole) < 1e-6


@pytest.mark.slow
def test_a_sharded_run_matches_a_run_of_one_process(pond_recipe: Path, tmp_path: Path) -> None:
    """`train` on one process, and with a resume on two, each with its shards."""
    same = ["adapter.dropout=0", "data.val=[]", "trainer.accelerator=cpu", "optim.lr=1e-4"]
    same += ["optim.schedule=constant", "trainer.max_steps=4"]

    def train(name: str, *overrides: str) -> Path:
        settings = [*same, *overrides, f"output.dir={tmp_path / name}"]
        sets = [word for setting in settings for word in ("--set", setting)]
        resume = ["--resume"] if (tmp_path / name).exists() else []
        run_python("-m", "molmo_tune", "train", str(pond_recipe), *sets, *resume)
        return tmp_path / name

    whole = train("whole", "trainer.batch_size=2")
    fsdp = ["trainer.strategy=fsdp", "trainer.devices=2"]
    train("sharded", *fsdp, "trainer.max_steps=2")
    sharded = train("sharded", *fsdp)
    (ours, our_losses), (theirs, their_losses) = _outcome(sharded), _outcome(whole)
    assert our_losses == pytest.approx(their_losses, rel=1e-4)
    assert ours.keys() == theirs.keys()
    for name, weights in theirs.items():
        assert weights.shape == ours[name].shape
        assert float((weights - ours[name]).norm() / weights.norm().clamp(min=1e-4)) < 1e-2, name


def _outcome(run: Path) -> tuple[dict[str, torch.Tensor], list[float]]:
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    return load_file(run / "adapter" / "adapter_model.safetensors"), losses


@pytest.mark.parametrize(
    "override", ["model.quantize=nf4", "optim.name=adamw_8bit", "adapter.method=pissa"]
)
def test_unsupported_fsdp_settings_are_errors(override: str, pond_recipe: Path) -> None:
    with pytest.raises(UserError, match="cannot be sharded"):
        load_recipe(pond_recipe, ["trainer.strategy=fsdp", override])
