"""Training that ends after some optimizer steps, to be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import Callback

from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training import fit as fit_phase


class StopAfter(Callback):
    """Ends training after some optimizer steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Stop when the steps are done."""
        trainer.should_stop = trainer.global_step >= self.steps


@contextmanager
def stopping_after(steps: int) -> Iterator[None]:
    """Let `train` end after some optimizer steps, during a ``with``."""
    build = fit_phase.build_trainer

    def build_stopping(
        recipe: Recipe, run: RunFolder, callbacks: Sequence[Callback], *, has_val: bool
    ) -> L.Trainer:
        return build(recipe, run, [*callbacks, StopAfter(steps)], has_val=has_val)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit_phase, "build_trainer", build_stopping)
        yield
