"""The `LightningModule`: model, loss and optimizer of one fine-tune.

**Normalization.** The loss of an optimizer step is Σ w·loss / Σ w over *all* its micro-batches and
devices. Micro-batches differ wildly in supervised tokens, so averaging their means is wrong (off by
104 % in a measured case). Each micro-batch therefore backpropagates its plain sum; the weights are
counted along, and just before clipping and the optimizer the gradients are divided once by the
weight of the whole step. The two factors that Lightning applies on its way (1/accumulation on the
loss, the mean over devices on the gradients) are taken back there too. Equal to one big batch to
1e-6, on one process and on two (`tests/test_training.py`).

**Checkpoints** hold the trainable weights only, besides optimizer, schedule and the states of loops
and random generators; the frozen base is found again by its name in the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.distributed.tensor import DTensor

from molmo_tune.encoding.encoded import Batch
from molmo_tune.media.array_cache import ArrayCache
from molmo_tune.model.adapters import bare_model, trainable_parameters
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loss import LossSums, loss_sums
from molmo_tune.model.molmo import Molmo
from molmo_tune.training import random_state
from molmo_tune.training.fsdp import shard
from molmo_tune.training.optimizers import OptimSettings, build_optimizer, clip_parts

RANDOM_STATE = "molmo_tune_random_state"


class MolmoModule(L.LightningModule):
    """Fine-tunes whatever parameters of a Molmo 2 require gradients.

    Args:
        model: a `PeftModel` (or bare model) with its trainable parameters marked.
        optim: optimizer settings.
        z_loss: factor of the squared log-partition term.
        offload_activations: keep what the backward pass needs in the CPU's memory.
        known_features: store of vision features that are not computed again.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimSettings,
        *,
        z_loss: float = 1e-4,
        offload_activations: bool = False,
        known_features: ArrayCache | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optim_settings = optim
        self.z_loss = z_loss
        self.offload_activations = offload_activations
        self.known_features = known_features
        self.strict_loading = False  # checkpoints leave the frozen base out
        self._step_weight = 0.0
        self._step_loss = 0.0
        self._random_state: dict[str, Any] | None = None  # of a checkpoint, until the first step

    def configure_model(self) -> None:
        """Under FSDP, split the weights over the devices."""
        if self.device_mesh is not None:
            shard(self, self.device_mesh["data_parallel"])

    @property
    def bare_model(self) -> Molmo:
        """`Molmo2ForConditionalGeneration` with the adapters inside."""
        return bare_model(self.model)

    def sums(self, batch: Batch) -> LossSums:
        """Loss sums of a batch (see `molmo_tune.model.loss`)."""
        model = self.bare_model
        hidden = hidden_states(model, batch, self.known_features)
        sums = loss_sums(
            hidden,
            model.lm_head.weight,
            batch.target_ids,
            batch.loss_weights,
            z_loss=self.z_loss,
        )
        if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
            sums = sums._replace(total=sums.total + self._touch_all())
        return sums

    def training_step(self, batch: Batch, _batch_index: int) -> torch.Tensor:
        """The *sum* of the micro-batch's losses; divided in `on_before_optimizer_step`."""
        with self._where_activations_are_kept():
            sums = self.sums(batch)
        self._step_weight += float(sums.weight)
        self._step_loss += float(sums.cross_entropy)
        return sums.total

    def _where_activations_are_kept(self) -> AbstractContextManager[object]:
        if not self.offload_activations:
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=self.device.type == "cuda")

    def _touch_all(self) -> torch.Tensor:
        """Zero, but with a gradient path to every trainable weight that lies here whole.

        A batch of text alone uses no vision adapter; data parallelism would wait for it forever.
        (What FSDP has sharded at this moment are decoder layers, which every batch uses.)
        """
        whole = [p for _, p in trainable_parameters(self.model) if not isinstance(p, DTensor)]
        return 0.0 * torch.stack([p.sum() for p in whole]).sum() if whole else torch.zeros(())

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        """Turn summed gradients into those of the step's weighted mean, and log its loss."""
        weight, loss = self._all_reduced(self._step_weight, self._step_loss)
        self._step_weight = self._step_loss = 0.0
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size / max(weight, 1e-12)
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        self.log("train/loss", loss / max(weight, 1e-12), prog_bar=True)

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        """Weighted mean cross-entropy over the validation set."""
        sums = self.sums(batch)
        weight = max(float(sums.weight), 1e-12)
        self.log(
            "val/loss", sums.cross_entropy / weight, batch_size=round(weight * 1000), sync_dist=True
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a rate per part of the model, stepped per optimizer step."""
        optimizer = build_optimizer(self.model, self.optim_settings)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_share)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip every part of the model by its own norm."""
        if gradient_clip_val is not None:
            clip_parts(optimizer, gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep trainable weights only, and add the state of all random generators."""
        names = {name for name, _ in trainable_parameters(self)}
        weights = checkpoint["state_dict"]  # empty on all processes but the first under FSDP
        checkpoint["state_dict"] = {name: weights[name] for name in names if name in weights}
        checkpoint[RANDOM_STATE] = random_state.capture()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another model; remember the generators' state for the first step."""
        names = {name for name, _ in trainable_parameters(self)}
        saved = set(checkpoint.get("state_dict", names))  # absent: FSDP has loaded it already
        if names != saved:
            odd = sorted(names ^ saved)
            raise ValueError(
                f"the checkpoint's trainable weights are not this run's: {len(odd)} differ, "
                f"the first {odd[0]}"
            )
        self._random_state = checkpoint.get(RANDOM_STATE)

    def on_train_batch_start(self, _batch: Batch, _batch_index: int) -> None:
        """After a resume, continue the random sequences (dropout) where they were."""
        if self._random_state is not None:
            random_state.restore(self._random_state)
            self._random_state = None

    def _lr_share(self, step: int) -> float:
        settings = self.optim_settings
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.schedule == "constant":
            return 1.0
        span = max(1, settings.max_steps - settings.warmup_steps)
        progress = min(1.0, (step - settings.warmup_steps) / span)
        falling = 1 - progress
        if settings.schedule == "cosine":
            falling = 0.5 * (1 + math.cos(math.pi * progress))
        return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * falling

    def _all_reduced(self, *values: float) -> Sequence[float]:
        if not (dist.is_available() and dist.is_initialized()):
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed
