"""One optimizer step of training under a memory tracker, of a real or a fake model.

The step calls `MolmoModule` in Lightning's order: forward passes under the precision's context,
backward passes, scaling and clipping of gradients, the optimizer. It is the second step, for which
the optimizer already has its state. If the recipe accumulates batches, it is the last of them, for
which gradients already exist.

Limitations: media, evaluation, checkpoints and time are not covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.plugins.precision import Precision

from molmo_tune.encoding.encoded import Batch
from molmo_tune.model.adapters import part_of, trainable_parameters
from molmo_tune.model.quantization import quantized_layers, scales_of
from molmo_tune.planning.flops import Flops
from molmo_tune.planning.memory_tracker import MemoryTracker
from molmo_tune.training.gradient_clipping import clip_components
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import build_optimizer

TRAINED, GRADIENTS, OPTIMIZER = "trained weights", "gradients", "optimizer states"
BUFFERS, BATCH, UPDATE = "buffers", "the batch itself", "update"
VISION, DECODER, LOSS, BACKWARD = "vision", "decoder", "loss", "backward pass"


@dataclass(frozen=True, slots=True)
class StepCost:
    """Memory and FLOPs of a step on a device.

    Args:
        peak_bytes: highest live memory.
        at_peak: the same by category, ``COMPONENT, frozen, DTYPE`` for frozen weights.
        resting_bytes: by category, between two steps.
        num_flops: of forward and backward pass of one batch, as PyTorch counts them.
    """

    peak_bytes: int
    at_peak: dict[str, int]
    resting_bytes: dict[str, int]
    num_flops: int


class TrackedStep:
    """A module and its optimizer under a tracker that knows the category of every tensor.

    Args:
        module: ready for training.
        tracker: entered by the caller after all modes that compute.
        precision: Lightning's plugin for the recipe's precision, on the device of the tensors.
        max_norm: of each component's gradients; None: no clipping.
    """

    def __init__(
        self,
        module: MolmoModule,
        tracker: MemoryTracker,
        precision: Precision,
        max_norm: float | None,
    ) -> None:
        self._module, self._tracker, self._precision = module, tracker, precision
        self._max_norm = max_norm
        for category, tensors in weights_by_category(module.model):
            tracker.assign(category, tensors)
        self._trained = [parameter for _, parameter in trainable_parameters(module.model)]
        self.optimizer = build_optimizer(module.model, module.optim_settings)
        self._resting: dict[str, int] = {}
        self._register_hooks()

    def prepare(self) -> None:
        """Create the optimizer's state, with a step along zero gradients."""
        for parameter in self._trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        for parameter in self._trained:
            self._tracker.assign(OPTIMIZER, _tensors_in(self.optimizer.state[parameter]))
        self.optimizer.zero_grad()
        self._resting = {k: v for k, v in self._tracker.live.items() if v}

    def run(self, batch: Batch, num_batches: int) -> StepCost:
        """Run a step of `num_batches` batches like this one.

        Only the last is computed; the gradients of those before it are created.
        """
        self._tracker.assign(BATCH, batch.tensors().values())
        if num_batches > 1:
            for parameter in self._trained:
                parameter.grad = torch.zeros_like(parameter)
                self._tracker.assign(GRADIENTS, [parameter.grad])
        self._tracker.reset_peak()
        with Flops() as flops:
            self._forward_and_backward(batch)
        self._update()
        self.optimizer.zero_grad()
        at_peak = {k: v for k, v in self._tracker.at_peak.items() if v}
        return StepCost(self._tracker.peak_bytes, at_peak, dict(self._resting), flops.total)

    def _forward_and_backward(self, batch: Batch) -> None:
        self._tracker.set_category(VISION)
        with self._precision.forward_context():
            loss = self._module.training_step(batch, 0)
        self._tracker.set_category(BACKWARD)
        loss.backward()

    def _update(self) -> None:
        self._tracker.set_category(UPDATE)
        for parameter in self._trained:
            if parameter.grad is not None:
                parameter.grad.mul_(1.0)
        if self._max_norm is not None:
            clip_components(self.optimizer, self._max_norm)
        self.optimizer.step()

    def _register_hooks(self) -> None:
        """Set the category as the forward pass proceeds, and that of every final gradient."""
        tracker, decoder = self._tracker, self._module.bare_model.model.language_model
        decoder.register_forward_pre_hook(lambda *_: tracker.set_category(DECODER))
        decoder.register_forward_hook(lambda *_: tracker.set_category(LOSS))
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(
                lambda p: tracker.assign(GRADIENTS, [p.grad])
            )


def weights_by_category(model: torch.nn.Module) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Yield categories and tensors of all weights and buffers, scales of quantized layers too."""
    quantized = {}
    for name, layer in quantized_layers(model):
        kind = "8 bits" if hasattr(layer, "state") else "4 bits"
        quantized[f"{name}.weight"] = kind
        yield f"{part_of(name)}, frozen, {kind}", [tensor for _, _, tensor in scales_of(layer)]
    yield BUFFERS, list(model.buffers())
    for name, tensor in model.named_parameters():
        kind = quantized.get(name) or str(tensor.dtype).removeprefix("torch.")
        frozen = f"{part_of(name)}, frozen, {kind}"
        yield TRAINED if tensor.requires_grad else frozen, [tensor]


def _tensors_in(state: dict[str, Any]) -> list[torch.Tensor]:
    return [value for value in state.values() if isinstance(value, torch.Tensor)]
