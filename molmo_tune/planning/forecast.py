"""The composition root of a plan: a recipe in, the memory and FLOPs of its training out.

The same code as in training makes the model and computes the step; only the tensors are fake. So
there is no second set of formulas that could go out of date. One exception is computed by
arithmetic: the gradient buckets of `ddp`. What cannot be forecast is refused (`fsdp`,
`preference`) or mentioned in `Forecast.remarks`.

A forecast is for a GPU, wherever it is made: ``auto`` settings become what a GPU with bfloat16
makes of them. A forecast for a CPU exists to be compared with a real step.

Limitations: no time estimate.
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
from molmo_tune.planning.step import TRAINED, StepCost, TrackedStep
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
    """Memory and FLOPs of training a recipe on a device.

    Args:
        recipe: with every ``auto`` resolved.
        counted: its rows.
        costs: for each of these rows.
        remarks: what the figures omit.
    """

    recipe: Recipe
    counted: Workload
    costs: tuple[StepCost, ...]
    remarks: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """Peak of the row that decides whether the run fits."""
        return self.costs[0].peak_bytes

    @property
    def num_step_flops(self) -> int:
        """FLOPs of an optimizer step on one device, with typical rows."""
        return self.costs[-1].num_flops * self.recipe.trainer.accumulate_grad_batches


def forecast(recipe: Recipe, *, device: Device = "cuda", only_largest: bool = False) -> Forecast:
    """Trace a step of the recipe on fake tensors and return what it takes.

    Args:
        recipe: resolved.
        device: that the figures are for.
        only_largest: only the row that decides whether the run fits.

    Raises:
        UserError: no such base, or a setting that cannot be forecast.
    """
    _refuse_unsupported(recipe)
    remarks = tuple(_remarks(recipe))
    recipe = definite(recipe, device)
    config = config_without_weights(recipe.model.name)
    counted = count_rows(recipe, config)
    rows = counted.rows[:1] if only_largest else counted.rows
    costs = tuple(_costs(recipe, config, rows, device))
    return Forecast(recipe, counted, costs, remarks)


def definite(recipe: Recipe, device: Device) -> Recipe:
    """Resolve ``auto`` for a device, and replace what cannot be made of fake tensors.

    PiSSA becomes LoRA, whose matrices have the same shapes, and a paged optimizer the unpaged one.
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
    """Return Lightning's plugin for a recipe's precision, for CPU tensors."""
    name = precision_of(recipe)
    if name == "32-true":
        return Precision()
    if name == "bf16-true":
        return HalfPrecision(name)
    return MixedPrecision(name, "cpu")


def _costs(
    recipe: Recipe, config: MolmoConfig, rows: tuple[Row, ...], device: Device
) -> tuple[StepCost, ...]:
    fake_mode, tracker = FakeTensorMode(), MemoryTracker()
    trainer, on_gpu = recipe.trainer, device == "cuda"
    precision = precision_plugin(recipe)
    base = model_without_weights(
        config, dtype=resolve_dtype(recipe.model.dtype), quantize=recipe.model.quantize
    )
    model = made_fake(precision.convert_module(prepare_model(base, recipe)), fake_mode)
    module = MolmoModule(model, optim_settings(recipe), z_loss=recipe.loss.z_loss)
    for_gpu = emulate_gpu(offload=trainer.offload_activations) if on_gpu else nullcontext()
    with fake_mode, ConcreteTensors(fake_mode), for_gpu, tracker:
        step = TrackedStep(module, tracker, precision, trainer.gradient_clip_val)
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
    """Add the buckets in which `ddp` keeps a second copy of the gradients."""
    num_bytes = cost.resting_bytes[TRAINED]
    return replace(
        cost,
        peak_bytes=cost.peak_bytes + num_bytes,
        at_peak={**cost.at_peak, BUCKETS: num_bytes},
        resting_bytes={**cost.resting_bytes, BUCKETS: num_bytes},
    )


def _refuse_unsupported(recipe: Recipe) -> None:
    if recipe.trainer.strategy == "fsdp":
        raise UserError("trainer.strategy", "no forecast for fsdp", "ddp, or one device")
    if recipe.preference is not None:
        found = "no forecast for pairs of answers"
        fix = "plan the recipe of preference.from_run"
        raise UserError("preference", found, "a recipe without preference", fix)
    if recipe.adapter.method == "dora" and recipe.model.quantize == "nf4":
        found = "no forecast for dora on 4-bit layers, because PEFT reads their norms"
        fix = "plan with --set adapter.method=lora, which needs less"
        raise UserError("adapter.method", found, "another method", fix)


def _remarks(recipe: Recipe) -> Iterator[str]:
    """Yield what the figures omit or approximate."""
    if recipe.eval.every_steps is not None:
        yield "answers generated during training (eval.every_steps) are not counted"
    if recipe.data.feature_cache.dir is not None:
        yield "figures are for the first epoch, which fills the feature cache"
    if recipe.model.quantize == "int8":
        yield "8-bit layers count as bitsandbytes computes them on a CPU"
    if recipe.adapter.method == "pissa":
        yield "PiSSA counts as LoRA, which has the same shapes"
    if recipe.optim.name == "paged_adamw_8bit":
        yield "paged optimizer states count as if they stayed on the device"
    if _has_buckets(recipe):
        yield "figures are for one of several devices; ddp buckets are computed by arithmetic"
