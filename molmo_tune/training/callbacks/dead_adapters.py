"""Refuse a run in which something trainable gets no gradient."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from molmo_tune.errors import UserError
from molmo_tune.model.adapters import trainable_parameters

STEPS_UNTIL_ADAPTERS_LIVE = 5
"""LoRA's A matrices get no gradient in the first step, when B is zero."""


class RefuseDeadAdapters(Callback):
    """Stops a run in which a trainable tensor got no gradient in the first steps.

    Reentrant gradient checkpointing and wrong target modules do this: the loss falls, and part of
    the adapter stays as it was.
    """

    def __init__(self) -> None:
        self._alive: set[str] = set()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Note which tensors have a gradient, and check them once after a few optimizer steps.

        Raises:
            UserError: some never had one.
        """
        if trainer.global_step >= STEPS_UNTIL_ADAPTERS_LIVE:
            return
        trained = trainable_parameters(pl_module)
        self._alive |= {name for name, p in trained if p.grad is not None and bool(p.grad.any())}
        if trainer.global_step == STEPS_UNTIL_ADAPTERS_LIVE - 1:
            self._require_alive([name for name, _ in trained])

    def _require_alive(self, names: list[str]) -> None:
        dead = [name for name in names if name not in self._alive]
        if dead:
            raise UserError(
                "adapter",
                f"{len(dead)} trainable tensors got no gradient in {STEPS_UNTIL_ADAPTERS_LIVE} "
                f"steps, the first {dead[0]}",
                "a gradient in each",
                "remove that component from adapter.targets, or add data that uses it",
            )
