"""One optimizer step of training, watched by a ledger; of a real model or of a fake one.

The step is that of `training.module`, called in the order in which Lightning calls it: forward
passes under the precision's context, backward passes, gradients scaled and clipped, the optimizer.
It is looked at as it is from the second step on, when the optimizer has its state; and with two
batches where the recipe accumulates several, because the second meets the gradients of the first.

What it does not do: open media, evaluate, write checkpoints, or measure time.
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
    """What a step takes of a device.

    Args:
        peak_bytes: at the highest moment.
        at_peak: the same by account; frozen weights are accounts ``PART, frozen, TYPE``.
        resting_bytes: by account, between two steps.
        num_flops: of the forward and backward pass of one batch, as PyTorch counts them.
    """

    peak_bytes: int
    at_peak: dict[str, int]
    resting_bytes: dict[str, int]
    num_flops: int


class WatchedStep:
    """A module, its optimizer and a ledger that knows whose tensors are whose.

    Args:
        module: ready for training.
        ledger: entered by the caller, above all modes that compute.
        precision: Lightning's plugin for the recipe's precision, on the device of the tensors.
        max_norm: of the gradients of a part; None: no clipping.
    """

    def __init__(
        self,
        module: MolmoModule,
        ledger: MemoryTracker,
        precision: Precision,
        max_norm: float | None,
    ) -> None:
        self._module, self._ledger, self._precision = module, ledger, precision
        self._max_norm = max_norm
        for account, tensors in accounts_of_weights(module.model):
            ledger.enter(account, tensors)
        self._trained = [parameter for _, parameter in trainable_parameters(module.model)]
        self.optimizer = build_optimizer(module.model, module.optim_settings)
        self._resting: dict[str, int] = {}
        self._watch_phases()

    def prepare(self) -> None:
        """Let the optimizer make its state, by a step along gradients of zero."""
        for parameter in self._trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        for parameter in self._trained:
            self._ledger.enter(OPTIMIZER, _tensors_in(self.optimizer.state[parameter]))
        self.optimizer.zero_grad()
        self._resting = {k: v for k, v in self._ledger.live.items() if v}

    def run(self, batch: Batch, num_batches: int) -> StepCost:
        """A step of so many batches of this kind.

        The gradients of the batches before the last are put there, and only that one is computed.
        """
        self._ledger.enter(BATCH, batch.tensors().values())
        if num_batches > 1:
            for parameter in self._trained:
                parameter.grad = torch.zeros_like(parameter)
                self._ledger.enter(GRADIENTS, [parameter.grad])
        self._ledger.begin()
        with Flops() as flops:
            self._forward_and_backward(batch)
        self._update()
        self.optimizer.zero_grad()
        at_peak = {k: v for k, v in self._ledger.at_peak.items() if v}
        return StepCost(self._ledger.peak_bytes, at_peak, dict(self._resting), flops.total)

    def _forward_and_backward(self, batch: Batch) -> None:
        self._ledger.open(VISION)
        with self._precision.forward_context():
            loss = self._module.training_step(batch, 0)
        self._ledger.open(BACKWARD)
        loss.backward()

    def _update(self) -> None:
        self._ledger.open(UPDATE)
        for parameter in self._trained:
            if parameter.grad is not None:
                parameter.grad.mul_(1.0)
        if self._max_norm is not None:
            clip_components(self.optimizer, self._max_norm)
        self.optimizer.step()

    def _watch_phases(self) -> None:
        """The ledger's open account follows the pass; a gradient is booked where it stays."""
        ledger, decoder = self._ledger, self._module.bare_model.model.language_model
        decoder.register_forward_pre_hook(lambda *_: ledger.open(DECODER))
        decoder.register_forward_hook(lambda *_: ledger.open(LOSS))
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(
                lambda p: ledger.enter(GRADIENTS, [p.grad])
            )


def accounts_of_weights(model: torch.nn.Module) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Accounts and tensors of all weights and buffers, with the scales of quantized layers."""
    small = {}
    for name, layer in quantized_layers(model):
        kind = "8 bits" if hasattr(layer, "state") else "4 bits"
        small[f"{name}.weight"] = kind
        yield f"{part_of(name)}, frozen, {kind}", [tensor for _, _, tensor in scales_of(layer)]
    yield BUFFERS, list(model.buffers())
    for name, tensor in model.named_parameters():
        kind = small.get(name) or str(tensor.dtype).removeprefix("torch.")
        frozen = f"{part_of(name)}, frozen, {kind}"
        yield TRAINED if tensor.requires_grad else frozen, [tensor]


def _tensors_in(state: dict[str, Any]) -> list[torch.Tensor]:
    return [value for value in state.values() if isinstance(value, torch.Tensor)]
