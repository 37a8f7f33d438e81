"""When checkpoints are written, and which one a run resumes from.

`MolmoModule` decides what a checkpoint contains: trained weights, optimizer, schedule, random
generators; `MolmoDataModule` adds the position in the data.
"""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint

from molmo_tune.errors import UserError
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.processes import is_first_process

MAX_STEPS_AT_RISK = 100
"""Optimizer steps that a crash costs at most."""


def periodic_checkpoints(recipe: Recipe, run: RunFolder) -> ModelCheckpoint:
    """Return the callback that saves at least four times a run, and every `MAX_STEPS_AT_RISK`."""
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename="step{step:06d}",
        auto_insert_metric_name=False,
        every_n_train_steps=min(MAX_STEPS_AT_RISK, max(1, recipe.trainer.max_steps // 4)),
        save_top_k=recipe.output.save_total_limit,
        monitor="step",
        mode="max",
        save_last=True,
        save_on_train_epoch_end=False,
    )


def checkpoint_to_resume(run: RunFolder, *, resume: bool) -> Path | None:
    """Return the run's last checkpoint if it is to be resumed.

    Raises:
        UserError: there is no checkpoint; or the folder has a run that is not to be resumed.
    """
    if resume and not run.last_checkpoint.is_file():
        fix = "check output.dir, or train without --resume"
        raise UserError(run.root, "nothing to resume from", str(run.last_checkpoint), fix)
    if not resume and run.recipe.is_file() and is_first_process():
        raise UserError(
            run.root,
            "already contains a run",
            "a new folder",
            "change output.dir, delete the folder, or resume the run with --resume",
        )
    return run.last_checkpoint if resume else None
