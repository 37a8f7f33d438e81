"""The first phase of a run: seed it, and decide whether it starts afresh or resumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightning as L
from rich.console import Console

from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.checkpoints import checkpoint_to_resume


@dataclass(frozen=True, slots=True)
class RunStart:
    """What every phase of a run needs.

    Args:
        recipe: resolved.
        console: for tables and progress.
        run: its folder, which need not exist yet.
        checkpoint: to resume from; None for a new run.
    """

    recipe: Recipe
    console: Console
    run: RunFolder
    checkpoint: Path | None


def start_run(recipe: Recipe, console: Console, *, resume: bool) -> RunStart:
    """Seed all random generators and find the checkpoint to resume from.

    Raises:
        UserError: there is nothing to resume, or the folder already contains a run.
    """
    L.seed_everything(recipe.seed, verbose=False)
    run = RunFolder(recipe.output.dir)
    return RunStart(recipe, console, run, checkpoint_to_resume(run, resume=resume))
