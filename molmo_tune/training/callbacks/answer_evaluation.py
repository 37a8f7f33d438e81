"""Evaluation during training: generate and score answers to validation questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from molmo_tune.encoding.items import Item
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import limits_of
from molmo_tune.evaluation.evaluate import Evaluation, evaluate
from molmo_tune.model.molmo import Molmo
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.molmo_module import MolmoModule


class EvaluateAnswers(Callback):
    """Evaluates every `every_steps` optimizer steps and logs the mean F1 as ``val/f1``.

    Args:
        every_steps: optimizer steps between two evaluations.
        evaluate: returns the evaluation of a model.
    """

    def __init__(self, every_steps: int, evaluate: Callable[[Molmo], Evaluation]) -> None:
        self._every_steps, self._evaluate = every_steps, evaluate
        self._last_step = 0
        self.scores: list[tuple[int, float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        """Evaluate in the first process when the step is due."""
        step = trainer.global_step
        if step == self._last_step or step % self._every_steps or not trainer.is_global_zero:
            return
        self._last_step = step
        with torch.random.fork_rng(devices=[]):
            f1 = self._evaluate(cast(MolmoModule, pl_module).bare_model).summary()["f1"]
        self.scores.append((step, f1))
        pl_module.log("val/f1", f1, prog_bar=True, rank_zero_only=True)


def evaluation_callbacks(
    recipe: Recipe, processor: Processor, items: Sequence[Item]
) -> list[Callback]:
    """Return the callback that evaluates on `items`; none without items or `eval.every_steps`."""
    every_steps = recipe.eval.every_steps
    if every_steps is None or not items:
        return []
    evaluate_items = partial(
        evaluate,
        processor=processor,
        items=items,
        limits=limits_of(recipe),
        max_new_tokens=recipe.eval.max_new_tokens,
        batch_size=recipe.eval.batch_size,
        max_questions=recipe.eval.max_questions,
    )
    return [EvaluateAnswers(every_steps, evaluate_items)]
