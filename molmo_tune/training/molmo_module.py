"""The `LightningModule`: model, loss and optimizer of a fine-tune.

**Normalization.** The loss of an optimizer step is Σ w·loss / Σ w over *all* its micro-batches and
devices. Micro-batches differ widely in supervised tokens, so averaging their means is wrong (off by
104% in a measured case). Each micro-batch therefore backpropagates its plain sum, the weights are
added up, and just before clipping and the optimizer the gradients are divided once by the weight of
the whole step. This also undoes the two factors that Lightning applies (1/accumulation to the loss,
the mean over devices to the gradients). The result matches one big batch to 1e-6, on one process
and on two (`tests/test_training.py`, `tests/test_distributed.py`).

**Checkpoints** contain only the trainable weights, in addition to the states of optimizer,
schedule, loops and random generators; the recipe names the frozen base.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import lightning as L
import torch
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
from molmo_tune.training.gradient_clipping import clip_components
from molmo_tune.training.optimizers import OptimSettings, build_optimizer
from molmo_tune.training.processes import has_several, sum_over_processes
from molmo_tune.training.schedule import lr_factor

RANDOM_STATE = "molmo_tune_random_state"


class MolmoModule(L.LightningModule):
    """Fine-tunes the parameters of a Molmo 2 that require gradients.

    Args:
        model: a `PeftModel`, or the bare model with its trainable parameters marked.
        optim: optimizer settings.
        z_loss: factor of the squared log-partition term.
        offload_activations: keep saved activations in CPU memory until the backward pass.
        feature_cache: vision features that need not be computed again.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimSettings,
        *,
        z_loss: float = 1e-4,
        offload_activations: bool = False,
        feature_cache: ArrayCache | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optim_settings = optim
        self.z_loss = z_loss
        self.offload_activations = offload_activations
        self.feature_cache = feature_cache
        self.strict_loading = False  # checkpoints omit the frozen base
        self._step_weight = 0.0
        self._step_loss = 0.0
        self._random_state: dict[str, Any] | None = None  # of a checkpoint, until the first step

    def configure_model(self) -> None:
        """Under FSDP, shard the weights over the devices."""
        if self.device_mesh is not None:
            shard(self, self.device_mesh["data_parallel"])

    @property
    def bare_model(self) -> Molmo:
        """`Molmo2ForConditionalGeneration` with the adapters inside."""
        return bare_model(self.model)

    def sums(self, batch: Batch) -> LossSums:
        """Return the loss sums of a batch (see `molmo_tune.model.loss`)."""
        model = self.bare_model
        sums = loss_sums(
            hidden_states(model, batch, self.feature_cache),
            model.lm_head.weight,
            batch.target_ids,
            batch.loss_weights,
            z_loss=self.z_loss,
        )
        if torch.is_grad_enabled() and has_several():
            sums = sums._replace(total=sums.total + self._touch_all())
        return sums

    def training_step(self, batch: Batch, _batch_index: int) -> torch.Tensor:
        """Return the *sum* of the micro-batch's losses; `on_before_optimizer_step` divides it."""
        with self._activations():
            sums = self.sums(batch)
        self._step_weight += float(sums.weight)
        self._step_loss += float(sums.cross_entropy)
        return sums.total

    def _activations(self) -> AbstractContextManager[object]:
        """Return the context that decides where saved activations are kept."""
        if not self.offload_activations:
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=self.device.type == "cuda")

    def _touch_all(self) -> torch.Tensor:
        """Return 0, with a gradient path to every trainable weight that is not sharded.

        A text-only batch uses no vision adapter, and data parallelism would wait for its gradient
        forever. (Sharded at this point are only decoder layers, which every batch uses.)
        """
        whole = [p for _, p in trainable_parameters(self.model) if not isinstance(p, DTensor)]
        return 0.0 * torch.stack([p.sum() for p in whole]).sum() if whole else torch.zeros(())

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        """Turn summed gradients into those of the step's weighted mean, and log its loss."""
        weight, loss = sum_over_processes((self._step_weight, self._step_loss), self.device)
        self._step_weight = self._step_loss = 0.0
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size / max(weight, 1e-12)
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        self.log("train/loss", loss / max(weight, 1e-12), prog_bar=True)

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        """Log the weighted mean cross-entropy over the validation set."""
        sums = self.sums(batch)
        weight = max(float(sums.weight), 1e-12)
        self.log(
            "val/loss", sums.cross_entropy / weight, batch_size=round(weight * 1000), sync_dist=True
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW and its schedule, which advances every optimizer step."""
        optimizer = build_optimizer(self.model, self.optim_settings)
        factor = partial(lr_factor, self.optim_settings)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
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
        """Clip each component by its own norm."""
        if gradient_clip_val is not None:
            clip_components(optimizer, gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop the frozen weights, and add the state of all random generators."""
        names = {name for name, _ in trainable_parameters(self)}
        weights = checkpoint["state_dict"]  # under FSDP empty in all processes but the first
        checkpoint["state_dict"] = {name: weights[name] for name in names if name in weights}
        checkpoint[RANDOM_STATE] = random_state.capture()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the names of the weights, and keep the generators' state for the first step.

        Raises:
            ValueError: the checkpoint has other trainable weights.
        """
        names = {name for name, _ in trainable_parameters(self)}
        saved = set(checkpoint.get("state_dict", names))  # absent if FSDP has loaded it already
        if names != saved:
            odd = sorted(names ^ saved)
            raise ValueError(
                f"{len(odd)} trainable weights of the checkpoint differ from the run's, the first "
                f"{odd[0]}"
            )
        self._random_state = checkpoint.get(RANDOM_STATE)

    def on_train_batch_start(self, _batch: Batch, _batch_index: int) -> None:
        """After a resume, continue the random sequences (dropout) where they stopped."""
        if self._random_state is not None:
            random_state.restore(self._random_state)
            self._random_state = None
