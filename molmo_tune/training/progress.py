"""One progress line for a whole fine-tune, in optimizer steps, with loss and time left."""

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


def progress_columns(console: Console) -> Progress:
    """The look of all progress bars of the command line."""
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
    """A bar over optimizer steps on a terminal; a line now and then elsewhere (logs, notebooks)."""

    def __init__(self, console: Console, lines: int = 10) -> None:
        super().__init__()
        self._console, self._lines = console, lines
        self._progress: Progress | None = None
        self._last_line = 0

    def disable(self) -> None:
        """Lightning silences the processes other than the first with this."""
        self._console = Console(quiet=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        self._progress = progress_columns(self._console)
        self._task = self._progress.add_task("training", total=trainer.max_steps, note="")
        self._last_line = trainer.global_step
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Move the bar, or print a line."""
        if self._progress is None:
            return
        metrics = trainer.callback_metrics
        parts = [
            f"{name.split('/')[1] if name == 'train/loss' else name} {float(metrics[name]):.3f}"
            for name in ("train/loss", "val/loss", "val/f1")
            if name in metrics
        ]
        note, step = "  ".join(parts), trainer.global_step
        self._progress.update(self._task, completed=step, note=note)
        every = max(1, int(trainer.max_steps) // self._lines)
        if not self._console.is_terminal and step >= self._last_line + every:
            self._last_line = step
            self._console.print(f"step {step} of {trainer.max_steps}  {note}", highlight=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the finished bar standing."""
        if self._progress is not None:
            self._progress.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Free the terminal."""
        if self._progress is not None:
            self._progress.stop()
