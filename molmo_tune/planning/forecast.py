"""The composition root of a plan: a recipe in, the memory and the operations of its training out.

The model is the recipe's, made by the code that makes the real one, and the step is the code of
training; only the tensors are fake. So there is no second set of formulas that could go out of
date. What is taken by arithmetic instead: gradients once more for the buckets of `ddp`; what cannot
be forecast is refused (`fsdp`, `preference`) or named in `Forecast.remarks`.

A forecast is for a GPU, wherever it is made: settings that say ``auto`` are what a GPU with
bfloat16 makes of them. For the CPU it can be made, too, where it can be compared with a run.

What it does not do: know a speed. None has been measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from torch._subclasses.fake_tensor import FakeTensorMode

from molmo_tune.errors import UserError
from molmo_tune.model.attention_backends import resolve_backend
from molmo_tune.model.loading import resolve_dtype
from molmo_tune.model.meta_model import (
    config_without_weights,
    made_fake,
    model_without_weights,
)
from molmo_tune.model.molmo import MolmoConfig
from molmo_tune.planning.concrete_tensors import ConcreteTensors
from molmo_tune.planning.gpu_emulation import emulate_gpu, update_at_once
from molmo_tune.planning.memory_tracker import MemoryTracker
from molmo_tune.planning.rows import Row
from molmo_tune.planning.step import TRAINED, StepCost, WatchedStep
from molmo_tune.planning.workload import Workload, count_rows
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import optim_settings
from molmo_tune.training.precision import precision_of
from molmo_tune.training.prepare_model import prepare_model

Device = Literal["cuda", "cpu"]
BUCKETS = "buckets of ddp"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What training a recipe takes of a device.

    Args:
        recipe: with every ``auto`` made definite.
        counted: its rows.
        costs: of each of these rows.
        remarks: what the figures leave out.
    """

    recipe: Recipe
    counted: Workload
    costs: tuple[StepCost, ...]
    remarks: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """Of the row that decides whether the run fits."""
        return self.costs[0].peak_bytes

    @property
    def num_step_flops(self) -> int:
        """Of an optimizer step on one device, on usual rows."""
        return self.costs[-1].num_flops * self.recipe.trainer.accumulate_grad_batches


def forecast(recipe: Recipe, *, device: Device = "cuda", only_largest: bool = False) -> Forecast:
    """Run a step of the recipe without memory and say what it would take.

    Args:
        recipe: resolved.
        device: that the figures are for.
        only_largest: only the row that decides.

    Raises:
        UserError: no such base, or something that cannot be forecast.
    """
    _refuse_what_is_unknown(recipe)
    remarks = tuple(_remarks(recipe))
    recipe = definite(recipe, device)
    config = config_without_weights(recipe.model.name)
    counted = count_rows(recipe, config)
    rows = counted.rows[:1] if only_largest else counted.rows
    costs = tuple(_costs(recipe, config, rows, device))
    return Forecast(recipe, counted, costs, remarks)


def definite(recipe: Recipe, device: Device) -> Recipe:
    """The recipe with what a device makes of ``auto``, and stand-ins of equal shapes.

    PiSSA differs from LoRA in what its matrices hold, a paged optimizer from the other in where its
    state may go; neither can be made without contents.
    """
    settings: dict[str, dict[str, Any]] = {"model": {}, "trainer": {}, "adapter": {}, "optim": {}}
    model, trainer = recipe.model, recipe.trainer
    name = model.dtype if model.dtype != "auto" else _AUTO_DTYPE[device]
    settings["model"]["dtype"] = name
    if trainer.precision == "auto":
        settings["trainer"]["precision"] = _PRECISIONS[name]
    precision = settings["trainer"].get("precision", trainer.precision)
    computed = torch.float32 if precision == "32-true" else torch.bfloat16
    settings["model"]["attention"] = resolve_backend(model.attention, device=device, dtype=computed)
    if recipe.adapter.method == "pissa":
        settings["adapter"]["method"] = "lora"
    if recipe.optim.name == "paged_adamw_8bit":
        settings["optim"]["name"] = "adamw_8bit"
    sections = {
        section: getattr(recipe, section).model_copy(update=update)
        for section, update in settings.items()
    }
    return recipe.model_copy(update=sections)


_AUTO_DTYPE: dict[Device, Any] = {"cuda": "bfloat16", "cpu": "float32"}
_PRECISIONS = {"bfloat16": "bf16-mixed", "float16": "16-mixed", "float32": "32-true"}


def precision_plugin(recipe: Recipe) -> Precision:
    """Lightning's plugin for a recipe's precision, on tensors of the CPU."""
    name = precision_of(recipe)
    if name == "32-true":
        return Precision()
    if name == "bf16-true":
        return HalfPrecision(name)
    return MixedPrecision(name, "cpu")


def _costs(
    recipe: Recipe, config: MolmoConfig, rows: tuple[Row, ...], device: Device
) -> tuple[StepCost, ...]:
    fake_mode, ledger = FakeTensorMode(), MemoryTracker()
    trainer, on_gpu = recipe.trainer, device == "cuda"
    precision = precision_plugin(recipe)
    base = model_without_weights(
        config, dtype=resolve_dtype(recipe.model.dtype), quantize=recipe.model.quantize
    )
    model = made_fake(precision.convert_module(prepare_model(base, recipe)), fake_mode)
    module = MolmoModule(model, optim_settings(recipe), z_loss=recipe.loss.z_loss)
    for_gpu = emulate_gpu(offload=trainer.offload_activations) if on_gpu else nullcontext()
    with fake_mode, ConcreteTensors(fake_mode), for_gpu, ledger:
        step = WatchedStep(module, ledger, precision, trainer.gradient_clip_val)
        if on_gpu:
            update_at_once(step.optimizer)
        step.prepare()

        def cost(row: Row) -> StepCost:
            patches = torch.empty(row.patches_shape(config, trainer.batch_size))
            batch = row.batch(config, trainer.batch_size, patches)
            return step.run(batch, trainer.accumulate_grad_batches)

        costs = tuple(map(cost, rows))
    return tuple(map(_with_buckets, costs)) if _has_buckets(recipe) else costs


def _has_buckets(recipe: Recipe) -> bool:
    return recipe.trainer.devices != 1


def _with_buckets(cost: StepCost) -> StepCost:
    """`ddp` keeps the gradients once more, in the buckets that it sends."""
    num_bytes = cost.resting_bytes[TRAINED]
    return replace(
        cost,
        peak_bytes=cost.peak_bytes + num_bytes,
        at_peak={**cost.at_peak, BUCKETS: num_bytes},
        resting_bytes={**cost.resting_bytes, BUCKETS: num_bytes},
    )


def _refuse_what_is_unknown(recipe: Recipe) -> None:
    if recipe.trainer.strategy == "fsdp":
        raise UserError("trainer.strategy", "no forecast is made for fsdp", "ddp, or one device")
    if recipe.preference is not None:
        found = "no forecast is made for pairs of answers"
        raise UserError("preference", found, "the recipe of the run that it goes on from")
    if recipe.adapter.method == "dora" and recipe.model.quantize == "nf4":
        found = "no forecast is made for dora on 4-bit layers, whose lengths PEFT measures"
        raise UserError("adapter.method", found, "lora, which takes less")


def _remarks(recipe: Recipe) -> Iterator[str]:
    """What the figures leave out or take for something else."""
    if recipe.eval.every_steps is not None:
        yield "answers that are generated during training (eval.every_steps) are not counted"
    if recipe.data.feature_cache.dir is not None:
        yield "counted is the first pass, in which the cache of features is filled"
    if recipe.model.quantize == "int8":
        yield "8-bit layers are counted as bitsandbytes computes them on a CPU"
    if recipe.adapter.method == "pissa":
        yield "PiSSA is counted as LoRA, whose shapes it has"
    if recipe.optim.name == "paged_adamw_8bit":
        yield "paged states are counted as if they stayed on the device"
    if _has_buckets(recipe):
        yield "several devices: figures are of one; the buckets of ddp are taken by arithmetic"
