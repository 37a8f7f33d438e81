"""Lightning's `Trainer` with the recipe's settings: loop, devices, precision, validation."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy

from molmo_tune.recipe.sections import Recipe, TrainerSection
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.callbacks.dead_adapters import RefuseDeadAdapters
from molmo_tune.training.callbacks.save_adapter import SaveAdapter
from molmo_tune.training.checkpoints import periodic_checkpoints
from molmo_tune.training.fsdp import sharding_strategy
from molmo_tune.training.precision import precision_of


def build_trainer(
    recipe: Recipe, run: RunFolder, callbacks: Sequence[Callback], *, has_val: bool
) -> L.Trainer:
    """Return the trainer of a run.

    To Lightning a run is one epoch of `max_steps` optimizer steps (see `MolmoDataModule`), and its
    `val_check_interval` counts batches.

    Args:
        recipe: resolved.
        run: folder for adapter and checkpoints.
        callbacks: in addition to those that every run needs.
        has_val: whether there are validation batches.
    """
    settings = recipe.trainer
    every_steps = recipe.eval.every_steps if has_val else None
    needed = [periodic_checkpoints(recipe, run), SaveAdapter(run), RefuseDeadAdapters()]
    return L.Trainer(
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val,
        precision=precision_of(recipe),
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=_strategy(settings),
        val_check_interval=every_steps and every_steps * settings.accumulate_grad_batches,
        limit_val_batches=1.0 if every_steps else 0,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[*needed, *callbacks],
        logger=False,
        enable_model_summary=False,
        default_root_dir=str(run.root),
    )


def _strategy(settings: TrainerSection) -> str | Strategy:
    if settings.strategy != "fsdp":
        return settings.strategy
    count = max(1, torch.cuda.device_count()) if settings.devices == "auto" else settings.devices
    return sharding_strategy(count)
