"""What is optional about a run: saving the adapter, refusing dead adapters, watching progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import Evaluation
from molmo_tune.model.adapters import save_adapter, trainable_parameters
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.fsdp import whole_trained_weights
from molmo_tune.training.module import MolmoModule

STEPS_UNTIL_ADAPTERS_LIVE = 5


class RefuseDeadAdapters(Callback):
    """Refuse a run in which something trainable got no gradient in the first steps.

    Seen with reentrant gradient checkpointing and with wrong target modules: the run looks well
    and trains nothing there. (LoRA's A matrices get none in the first step, when B is zero.)
    """

    def __init__(self) -> None:
        self._alive: set[str] = set()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Note who has a gradient; complain once, after a few optimizer steps."""
        if trainer.global_step >= STEPS_UNTIL_ADAPTERS_LIVE:
            return
        trained = trainable_parameters(pl_module)
        self._alive |= {name for name, p in trained if p.grad is not None and bool(p.grad.any())}
        if trainer.global_step < STEPS_UNTIL_ADAPTERS_LIVE - 1:
            return
        dead = [name for name, _ in trained if name not in self._alive]
        if dead:
            raise UserError(
                "adapter",
                f"{len(dead)} trainable tensors got no gradient in {STEPS_UNTIL_ADAPTERS_LIVE} "
                f"steps, the first {dead[0]}",
                "all of them to be trained",
                "leave that part out of adapter.targets, or use data that reaches it",
            )


class SaveAdapter(Callback):
    """Write what was trained when training ends, also when it is interrupted."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save from the first process; under FSDP all of them give their rows to it."""
        model = cast(MolmoModule, pl_module).model
        gathered = whole_trained_weights(model)
        if trainer.is_global_zero:
            save_adapter(model, self._run.adapter, gathered)


class RecordLosses(Callback):
    """Keep the training loss of every optimizer step for the report's curve."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Note a loss when an optimizer step was made."""
        loss = trainer.callback_metrics.get("train/loss")
        step = trainer.global_step
        if loss is not None and (not self.losses or self.losses[-1][0] != step):
            self.losses.append((step, float(loss)))


class RecordFigures(Callback):
    """Keep logged figures of every optimizer step, for the metrics' file and the report.

    Args:
        names: as logged, without ``train/``.

    ``by_step``: of each name, its value by optimizer step.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.by_step: dict[str, dict[int, float]] = {name: {} for name in names}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Note them when an optimizer step was made."""
        for name, values in self.by_step.items():
            if f"train/{name}" in trainer.callback_metrics:
                figure = float(trainer.callback_metrics[f"train/{name}"])
                values.setdefault(trainer.global_step, figure)

    def figures(self) -> dict[str, dict[str, float]]:
        """For the report: the first and the last of each."""
        return {
            name: {"first": values[min(values)], "last": values[max(values)]}
            for name, values in self.by_step.items()
            if values
        }


class EvaluateAnswers(Callback):
    """Generate and score answers on validation items every so many optimizer steps.

    Args:
        every_steps: how often.
        evaluate: given the model, returns an evaluation (the composition root binds the rest).
    """

    def __init__(self, every_steps: int, evaluate: Callable[[Any], Evaluation]) -> None:
        self._every_steps, self._evaluate = every_steps, evaluate
        self._last = 0
        self.scores: list[tuple[int, float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Evaluate on the first process when a multiple of `every_steps` was reached."""
        step = trainer.global_step
        if step == self._last or step % self._every_steps or not trainer.is_global_zero:
            return
        self._last = step
        with torch.random.fork_rng(devices=[]):
            f1 = self._evaluate(pl_module.bare_model).summary()["f1"]
        self.scores.append((step, f1))
        pl_module.log("val/f1", f1, prog_bar=True, rank_zero_only=True)
