"""FSDP: one copy of the weights sharded over several devices, for bases that fit on none.

PyTorch's `fully_shard` under Lightning's `ModelParallelStrategy`. Every decoder layer is gathered
when it computes; everything else (embeddings, vision tower, connector, head) is one group that is
gathered for the whole step, because a text-only batch does not use all of it and the devices would
wait for each other. For the same reason every layer must get an input with a gradient on every
device, or the order in which gradients are reduced would differ between them.

Limitations: no quantized bases or 8-bit optimizers (untested), no PiSSA, no answers generated
during training; the recipe refuses these.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from molmo_tune.model.adapters import bare_model, trainable_parameters


def sharding_strategy(num_processes: int) -> Strategy:
    """Return the strategy that shards over all processes and writes checkpoints as single files."""
    return ModelParallelStrategy(
        data_parallel_size=num_processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def shard(module: Any, mesh: DeviceMesh) -> None:
    """Shard the weights of a `MolmoModule` over the devices of `mesh`, in place."""
    model = bare_model(module.model)
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(module, "sums")
    cast(Any, model).enable_input_require_grads()


def gather_trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """Return the trained weights by name, gathered on the CPU; None if nothing is sharded.

    A collective operation: every process must call it.
    """
    trained = trainable_parameters(model)
    if not any(isinstance(p, DTensor) for _, p in trained):
        return None
    return {name: cast(DTensor, p).full_tensor().cpu() for name, p in trained}
