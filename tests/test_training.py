"""What is exact about training: normalization, resume, which weights train and are saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import Batch, EncodedSample
from molmo_tune.encoding.sample_encoder import encode_conversation
from molmo_tune.encoding.vision_inputs import video_inputs
from molmo_tune.errors import UserError
from molmo_tune.model.adapters import (
    PART_MODULES,
    Part,
    add_adapter,
    bare_model,
    parameter_table,
    part_of,
    trainable_parameters,
)
from molmo_tune.model.gradient_checkpointing import checkpoint_layers
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.model.loss import loss_sums
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training import prepare_model
from molmo_tune.training.batches.batch_stream import BatchStream
from molmo_tune.training.callbacks.dead_adapters import RefuseDeadAdapters
from molmo_tune.training.checkpoints import checkpoint_to_resume
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings
from molmo_tune.training.run import train
from tests.drawn_lora import drawn_lora
from tests.stopped_training import stopping_after

ANSWERS = (
    "Two.",
    "There are none, as far as anyone can see, in any of these frames at all.",
    "In the middle.",
    "It moves to the right.",
)
SETTINGS = OptimSettings(lr=1e-3, max_steps=1, part_lr={}, warmup_steps=0, schedule="constant")


def samples() -> list[EncodedSample]:
    """Four samples with very different numbers of supervised tokens; one has a video."""
    processor = load_processor("tiny")
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)
    vision = video_inputs(processor, frames, [0.0, 0.5])
    encoded = [encode_conversation(processor, str(k), ["Say.", a]) for k, a in enumerate(ANSWERS)]
    encoded[2] = encode_conversation(processor, "2", ["Where?", ANSWERS[2]], vision)
    assert len({sample.num_supervised for sample in encoded}) == len(ANSWERS)
    return encoded


def adapted_model() -> Any:
    return drawn_lora(load_model("tiny"), ["language", "connector"], std=0.05)


class Observed(MolmoModule):
    """Keeps the gradients that the optimizer gets; clipping comes after the normalization."""

    gradients: dict[str, torch.Tensor]

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        named = trainable_parameters(self)
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}


def gradients_of(batches: list[Batch], accumulate: int) -> dict[str, torch.Tensor]:
    module = Observed(adapted_model(), SETTINGS)
    trainer = L.Trainer(
        max_steps=1,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return module.gradients


def worst_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    assert ours
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_micro_batches_give_the_gradient_of_one_big_batch() -> None:
    encoded = samples()
    whole = gradients_of([collate(encoded, pad_id=0)], accumulate=1)
    parts = gradients_of([collate([sample], pad_id=0) for sample in encoded], accumulate=4)
    assert worst_difference(parts, whole) < 1e-6


def test_averaging_means_fails_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparison with the usual normalization: the test above can fail."""
    encoded = samples()
    whole = gradients_of([collate(encoded, pad_id=0)], accumulate=1)

    def mean(self: MolmoModule, batch: Batch, _: int) -> torch.Tensor:
        sums = self.sums(batch)
        return sums.total / sums.weight

    monkeypatch.setattr(MolmoModule, "training_step", mean)
    monkeypatch.setattr(MolmoModule, "on_before_optimizer_step", lambda *_: None)
    parts = gradients_of([collate([sample], pad_id=0) for sample in encoded], accumulate=4)
    assert worst_difference(parts, whole) > 1e-3


def _adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def read_metrics(run: Path) -> list[list[str]]:
    """Rows of a run's metrics: step, loss, and the fraction of time waited, which varies."""
    return [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]


def test_resume_is_bit_identical(pond_recipe: Path, tmp_path: Path) -> None:
    """Six steps, and three steps, a stop and three more: equal weights, dropout included."""
    console = Console(quiet=True)
    uninterrupted = load_recipe(pond_recipe, [f"output.dir={tmp_path / 'uninterrupted'}"])
    train(uninterrupted, console)
    resumed = load_recipe(pond_recipe, [f"output.dir={tmp_path / 'resumed'}"])
    with stopping_after(3):
        assert train(resumed, console).steps == 3
    halfway = _adapter(tmp_path / "resumed")
    torch.manual_seed(12345)
    assert train(resumed, console, resume=True).steps == 6
    ours, theirs = _adapter(tmp_path / "resumed"), _adapter(tmp_path / "uninterrupted")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(ours[name], halfway[name]) for name in halfway)
    steps, losses, waits = zip(*read_metrics(tmp_path / "resumed"), strict=True)
    assert steps == ("step", "1", "2", "3", "4", "5", "6")
    assert losses == list(zip(*read_metrics(tmp_path / "uninterrupted"), strict=True))[1]
    assert all(0 <= float(wait) <= 1 for wait in waits[1:] if wait)


def test_checkpoints_contain_trainable_weights_and_positions(
    pond_recipe: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(pond_recipe, ["trainer.max_steps=2"])
    train(recipe, Console(quiet=True))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=False)
    assert all("lora_" in name for name in checkpoint["state_dict"])
    assert checkpoint["optimizer_states"]
    assert checkpoint["molmo_tune_random_state"]
    assert checkpoint["MolmoDataModule"] == {"batches_done": 4}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["steps"] == 2
    assert report["train"]["questions"] > 0
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


def test_batches_cover_every_epoch_and_resume_anywhere() -> None:
    stream = BatchStream(5, 2, 10, seed=1)
    batches = list(stream)
    flat = [item for batch in batches for item in batch]
    assert len(batches) == len(stream) == 10
    for number in range(4):
        assert sorted(flat[5 * number : 5 * number + 5]) == [0, 1, 2, 3, 4]
    assert flat[:5] != flat[5:10]
    assert list(BatchStream(5, 2, 10, seed=1, first_batch=3)) == batches[3:]
    shares = [list(BatchStream(5, 1, 10, seed=1, rank=r, world_size=2)) for r in (0, 1)]
    merged = [item for pair in zip(*shares, strict=True) for batch in pair for item in batch]
    assert merged == flat[:20]


@pytest.mark.parametrize("targets", [["language"], ["connector"], ["vision"], list(PART_MODULES)])
def test_adapters_stay_in_their_component(targets: list[Any]) -> None:
    model = add_adapter(
        load_model("tiny"), method="lora", rank=2, alpha=4, dropout=0.0, targets=targets
    )
    trained = {part_of(name) for name, _ in trainable_parameters(model)}
    assert trained == set(targets)
    names = [name for name, _ in trainable_parameters(model)]
    assert not any("embed_tokens" in name or "lm_head" in name for name in names)
    assert parameter_table(model)[-1][2] == sum(p.numel() for _, p in trainable_parameters(model))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_reaches_the_vision_tower(reentrant: bool) -> None:
    """Our checkpointing gives every adapter a gradient; the reentrant kind does not (trap 9)."""
    parts: list[Part] = ["language", "vision"]
    model = add_adapter(
        load_model("tiny"), method="lora", rank=2, alpha=4, dropout=0.0, targets=parts
    )
    checkpoint_layers(bare_model(model), parts)
    if reentrant:
        bare_model(model).gradient_checkpointing_enable({"use_reentrant": True})
    module = MolmoModule(model.train(), SETTINGS)
    module.sums(collate([samples()[2]], pad_id=0)).total.backward()
    got = {
        name: p.grad is not None and bool(p.grad.any())
        for name, p in trainable_parameters(model)
        if "lora_B" in name
    }
    vision = [is_alive for name, is_alive in got.items() if part_of(name) == "vision"]
    assert vision
    assert len(vision) < len(got)
    assert not any(vision) if reentrant else all(got.values())


@pytest.mark.parametrize("alive", ["none", "all but one", "all"])
def test_dead_adapters_are_an_error(alive: str) -> None:
    """A gradient in any of the first five steps is enough."""
    model = add_adapter(
        load_model("tiny"), method="lora", rank=2, alpha=4, dropout=0.0, targets=["vision"]
    )
    module, refuse = MolmoModule(model, SETTINGS), RefuseDeadAdapters()
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    done = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    (first, dead), *others = trainable_parameters(module)
    for parameter in [p for _, p in others if alive != "none"] + [dead] * (alive == "all"):
        parameter.grad = torch.ones_like(parameter)
    refuse.on_before_optimizer_step(trainer, module)
    model.zero_grad()
    done.completed = 4
    if alive == "all":
        refuse.on_before_optimizer_step(trainer, module)
        return
    number = 1 if alive == "all but one" else len(others) + 1
    with pytest.raises(UserError, match=f"^adapter: {number} trainable .* first {first};"):
        refuse.on_before_optimizer_step(trainer, module)


def test_a_vision_token_as_target_is_an_error() -> None:
    hidden, head = torch.randn(1, 2, 8), torch.randn(10, 8)
    with pytest.raises(ValueError, match="vision tokens must have weight 0"):
        loss_sums(hidden, head, torch.tensor([[3, 10]]), torch.ones(1, 2), z_loss=0.0)


def test_a_run_is_not_overwritten(pond_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(pond_recipe, ["trainer.max_steps=1", "optim.warmup_steps=0"])
    train(recipe, Console(quiet=True))
    with pytest.raises(UserError, match="already contains a run"):
        train(recipe, Console(quiet=True))
    # The other processes of a data-parallel run find the folder that the first has just made.
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert checkpoint_to_resume(RunFolder(recipe.output.dir), resume=False) is None


def test_a_model_that_does_not_load_leaves_no_run_folder(
    pond_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next try would find a run that it can neither replace nor resume."""
    recipe = load_recipe(pond_recipe)

    def failing(*_: Any, **__: Any) -> Any:
        raise UserError("model", "does not load")

    with monkeypatch.context() as patched:
        patched.setattr(prepare_model, "build_model", failing)
        with pytest.raises(UserError, match="does not load"):
            train(recipe, Console(quiet=True))
    assert checkpoint_to_resume(RunFolder(recipe.output.dir), resume=False) is None
