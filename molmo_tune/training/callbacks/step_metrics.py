"""Metrics of every optimizer step: recorded while a run trains, written to its `metrics.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import lightning as L
from lightning.pytorch.callbacks import Callback

from molmo_tune.atomic_files import atomic_file

ByStep = Mapping[int, float]


class FirstAndLast(TypedDict):
    """A metric at the first and the last step of a run."""

    first: float
    last: float


class RecordLosses(Callback):
    """Keeps the training loss of every optimizer step: ``losses``, pairs of step and loss."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Record the loss after an optimizer step."""
        loss = trainer.callback_metrics.get("train/loss")
        step = trainer.global_step
        if loss is not None and (not self.losses or self.losses[-1][0] != step):
            self.losses.append((step, float(loss)))


class RecordMetrics(Callback):
    """Keeps logged metrics of every optimizer step.

    Args:
        names: as logged, without ``train/``.

    ``by_step``: for each name, its value by optimizer step.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.by_step: dict[str, dict[int, float]] = {name: {} for name in names}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Record the metrics after an optimizer step."""
        for name, values in self.by_step.items():
            if f"train/{name}" in trainer.callback_metrics:
                value = float(trainer.callback_metrics[f"train/{name}"])
                values.setdefault(trainer.global_step, value)

    def figures(self) -> dict[str, FirstAndLast]:
        """Return the first and last value of each metric, for the report."""
        return {
            name: {"first": values[min(values)], "last": values[max(values)]}
            for name, values in self.by_step.items()
            if values
        }


def write_metrics(
    file: Path,
    losses: Sequence[tuple[int, float]],
    metrics: Mapping[str, ByStep],
    *,
    keep_earlier: bool,
) -> None:
    """Write a row per optimizer step: step, loss and the other metrics.

    Args:
        file: `metrics.csv` of the run.
        losses: pairs of step and loss.
        metrics: the other columns by name; a step without a value gets an empty cell.
        keep_earlier: keep the rows that were written before a resume.
    """
    names = ("step", "train_loss", *metrics)
    first = losses[0][0] if losses else 0
    earlier = _earlier_rows(file, names, first) if keep_earlier and file.is_file() else []
    with atomic_file(file) as part, part.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(names)
        writer.writerows(earlier)
        for step, loss in losses:
            values = (by_step.get(step) for by_step in metrics.values())
            writer.writerow([step, loss, *("" if v is None else f"{v:.4f}" for v in values)])


def _earlier_rows(file: Path, names: Sequence[str], before_step: int) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if int(row["step"]) < before_step]
    return [[row.get(name) or "" for name in names] for row in rows]
