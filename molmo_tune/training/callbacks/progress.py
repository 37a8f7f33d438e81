"""One progress line for a whole fine-tune, in optimizer steps, with loss and remaining time."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SHOWN = {"train/loss": "loss", "val/loss": "val/loss", "val/f1": "val/f1"}
"""Metrics on the line, and their names there."""


def progress_columns(console: Console) -> Progress:
    """Return a progress bar in the style of all commands."""
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


class StepProgress(ProgressBar):
    """A bar over optimizer steps on a terminal; elsewhere (logs, notebooks) a line every few steps.

    Args:
        console: to print on.
        every_steps: optimizer steps between two lines; the last step always gets one.
    """

    def __init__(self, console: Console, every_steps: int) -> None:
        super().__init__()
        self._console, self._every_steps = console, every_steps
        self._progress: Progress | None = None
        self._last_step = 0

    def disable(self) -> None:
        """Silence a process; Lightning calls this in all but the first."""
        self._console = Console(quiet=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        self._progress = progress_columns(self._console)
        self._task = self._progress.add_task("training", total=trainer.max_steps, note="")
        self._last_step = trainer.global_step
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Move the bar, or print a line when an optimizer step is due."""
        if self._progress is None:
            return
        step, note = trainer.global_step, _note(trainer)
        self._progress.update(self._task, completed=step, note=note)
        if not self._console.is_terminal and self._is_due(step, trainer.max_steps):
            self._console.print(f"step {step} of {trainer.max_steps}  {note}", highlight=False)
        self._last_step = step

    def _is_due(self, step: int, max_steps: int) -> bool:
        is_new = step != self._last_step  # else within an accumulation window
        return is_new and (step % self._every_steps == 0 or step == max_steps)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the bar and leave it on the screen."""
        if self._progress is not None:
            self._progress.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Release the terminal."""
        if self._progress is not None:
            self._progress.stop()


def _note(trainer: L.Trainer) -> str:
    metrics = trainer.callback_metrics
    return "  ".join(
        f"{name} {float(metrics[key]):.3f}" for key, name in SHOWN.items() if key in metrics
    )
