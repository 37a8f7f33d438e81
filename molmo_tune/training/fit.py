"""The training phase: Lightning's `Trainer`, with the callbacks that record what happens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch.callbacks import Callback

from molmo_tune.encoding.sources import pack_limits_of
from molmo_tune.model.adapters import parameter_table
from molmo_tune.training.batches.data_module import MolmoDataModule
from molmo_tune.training.callbacks.answer_evaluation import evaluation_callbacks
from molmo_tune.training.callbacks.data_wait import RecordDataWait
from molmo_tune.training.callbacks.media_monitor import MediaMonitor
from molmo_tune.training.callbacks.pack_fill import RecordPacks
from molmo_tune.training.callbacks.progress import StepProgress
from molmo_tune.training.callbacks.step_metrics import RecordLosses, RecordMetrics
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.read_data import TrainingData
from molmo_tune.training.run_start import RunStart
from molmo_tune.training.trainer import build_trainer


@dataclass(frozen=True, slots=True)
class Recorders:
    """Callbacks whose figures end up in the run folder."""

    losses: RecordLosses
    data_wait: RecordDataWait
    metrics: RecordMetrics
    media: MediaMonitor
    packs: RecordPacks | None

    def callbacks(self) -> list[Callback]:
        """Return those that are in use."""
        recorders = (self.losses, self.data_wait, self.metrics, self.media, self.packs)
        return [one for one in recorders if one is not None]


@dataclass(frozen=True, slots=True)
class FittedRun:
    """A finished training: optimizer steps, wall time, trained fraction of the weights."""

    steps: int
    seconds: float
    trainable_fraction: float
    recorders: Recorders


def fit(
    start: RunStart,
    data: TrainingData,
    module: MolmoModule,
    batches: MolmoDataModule,
    *,
    metrics: Sequence[str] = (),
) -> FittedRun:
    """Train, or resume training, until `trainer.max_steps`.

    Args:
        start: recipe, folder and checkpoint.
        data: items of both splits.
        module: model, loss and optimizer.
        batches: what it trains on.
        metrics: to record in addition to the loss, as logged without ``train/``.
    """
    recorders = _recorders(start, data, metrics)
    callbacks = _callbacks(start, data, recorders)
    trainer = build_trainer(start.recipe, start.run, callbacks, has_val=bool(data.val))
    started_s = time.perf_counter()
    checkpoint = str(start.checkpoint) if start.checkpoint is not None else None
    trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=False)
    seconds = time.perf_counter() - started_s
    _, total, trained = parameter_table(module.model)[-1]
    return FittedRun(trainer.global_step, seconds, trained / total, recorders)


def _recorders(start: RunStart, data: TrainingData, metrics: Sequence[str]) -> Recorders:
    limits = pack_limits_of(start.recipe)
    packs = RecordPacks(limits) if limits is not None else None
    return Recorders(RecordLosses(), RecordDataWait(), RecordMetrics(metrics), data.media, packs)


def _callbacks(start: RunStart, data: TrainingData, recorders: Recorders) -> list[Callback]:
    progress = StepProgress(start.console, start.recipe.trainer.log_every_n_steps)
    evaluation = evaluation_callbacks(start.recipe, data.processor, data.val)
    return [*recorders.callbacks(), progress, *evaluation]
