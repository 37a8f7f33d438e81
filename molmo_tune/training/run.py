"""The composition root: a recipe in, a trained run folder out.

Only here do the rooms meet: labels become items, the model gets its adapters, Lightning gets both.
Everything that can fail on the user's side fails before the model is loaded, and the run folder is
not touched until then. The run's report says what was trained on what and what was left out.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.items import Item, Refused
from molmo_tune.encoding.media_inputs import FeatureNames
from molmo_tune.encoding.sources import (
    cache_place,
    limits_of,
    measure_packing,
    pack_limits_of,
    read_items,
)
from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import evaluate
from molmo_tune.media.array_store import store_at
from molmo_tune.model.adapters import add_adapter, bare_model, keep_start, parameter_table
from molmo_tune.model.attention_backends import (
    Backend,
    backend_of,
    resolve_backend,
    use_backend,
)
from molmo_tune.model.checkpointing import checkpoint_layers
from molmo_tune.model.feature_cache import fingerprint
from molmo_tune.model.identity import base_identity
from molmo_tune.model.loading import load_model, load_processor, resolve_dtype
from molmo_tune.recipe.saving import dump_recipe
from molmo_tune.recipe.sections import Recipe, TrainerSection
from molmo_tune.run_folder import RunFolder, write_json
from molmo_tune.training.callbacks import (
    EvaluateAnswers,
    RecordLosses,
    RefuseDeadAdapters,
    SaveAdapter,
)
from molmo_tune.training.data import MolmoDataModule
from molmo_tune.training.data_wait import RecordDataWait
from molmo_tune.training.module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings
from molmo_tune.training.pack_fill import RecordPacks
from molmo_tune.training.progress import StepProgress
from molmo_tune.training.run_report import TrainingResult, write_losses, write_report
from molmo_tune.training.sharding import sharding_strategy
from molmo_tune.training.watch_media import WatchMedia

WARMUP_SHARE = 0.03
MAX_STEPS_AT_RISK = 100  # a crash costs at most so many optimiser steps


def train(recipe: Recipe, console: Console, *, resume: bool = False) -> TrainingResult:
    """Fine-tune as the recipe says.

    Args:
        recipe: resolved.
        console: for tables and progress.
        resume: continue from the run folder's last checkpoint; bit-equal to not having stopped.

    Raises:
        UserError: labels, media, checkpoint or folder cannot be used; or there is nothing to
        resume.
    """
    _quiet_libraries()
    L.seed_everything(recipe.seed, verbose=False)
    run = RunFolder(recipe.output.dir)
    checkpoint = _checkpoint_to_resume(run, resume)
    processor = load_processor(recipe.model.name)
    train_items, refused = read_items(recipe.data.train, recipe, processor)
    val_items, val_refused = read_items(recipe.data.val, recipe, processor)
    _print_left_out(console, refused + val_refused)
    _print_packing(console, recipe, train_items)
    media = _watch_media(console, recipe, train_items, refused)
    _require_caches(recipe)
    if _is_first_process():
        run.create()
        run.recipe.write_text(dump_recipe(recipe), encoding="utf-8")
    model = build_model(recipe)
    names = feature_names(recipe, model, processor)
    module = MolmoModule(
        model,
        optim_settings(recipe),
        z_loss=recipe.loss.z_loss,
        offload_activations=recipe.trainer.offload_activations,
        known_features=store_at(names.place) if names is not None else None,
    )
    if _is_first_process():
        keep_start(model, run.adapter)
        write_json(run.base, base_identity(model, processor))
    _print_parameters(console, module, recipe)
    data = data_module(recipe, processor, train_items, val_items, names)
    record, wait = RecordLosses(), RecordDataWait()
    callbacks = [record, wait, media, StepProgress(console)]
    callbacks += _callbacks(recipe, run, processor, val_items)
    limits = pack_limits_of(recipe)
    packs = RecordPacks(limits) if limits is not None else None
    callbacks += [packs] if packs is not None else []
    trainer = build_trainer(recipe, run, callbacks, has_val=bool(val_items))
    started = time.perf_counter()
    trainer.fit(module, data, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=False)
    seconds = time.perf_counter() - started
    shares = parameter_table(model)[-1]
    result = TrainingResult(
        run, trainer.global_step, tuple(record.losses), shares[2] / shares[1], seconds
    )
    if _is_first_process():
        media.print_summary()
        write_losses(run, record.losses, wait.by_step, resume)
        figures = {
            "packing": packs.figures() if packs is not None else None,
            "media": media.figures(),
            "data_wait": wait.figures(),
        }
        write_report(result, recipe, train_items, val_items, refused + val_refused, figures)
    return result


def build_model(recipe: Recipe) -> Any:
    """Base model with fresh adapters, as the recipe says.

    ``auto`` precision follows the dtype: adapters are kept in float32 beside a 16-bit base.
    """
    base = load_model(
        recipe.model.name,
        dtype=resolve_dtype(recipe.model.dtype),
        quantize=recipe.model.quantize,
    )
    use_backend(base, _attention(recipe))
    adapter = recipe.adapter
    model = add_adapter(
        base,
        method=adapter.method,
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        targets=adapter.targets,
        rslora=adapter.rslora,
    )
    if recipe.trainer.gradient_checkpointing:
        checkpoint_layers(base, recipe.trainer.checkpointed_parts)
    return model.train()


def optim_settings(recipe: Recipe) -> OptimSettings:
    """The recipe's optimiser section with the length of the run."""
    optim = recipe.optim
    rates = {"connector": optim.lr_connector, "vision": optim.lr_vision}
    decays = {"connector": optim.weight_decay_connector, "vision": optim.weight_decay_vision}
    max_steps = recipe.trainer.max_steps
    warmup = round(WARMUP_SHARE * max_steps) if optim.warmup_steps is None else optim.warmup_steps
    return OptimSettings(
        lr=optim.lr,
        max_steps=max_steps,
        part_lr={part: rate for part, rate in rates.items() if rate is not None},
        part_weight_decay={part: decay for part, decay in decays.items() if decay is not None},
        lora_plus_ratio=optim.lora_plus_ratio,
        name=optim.name,
        weight_decay=optim.weight_decay,
        betas=optim.betas,
        eps=optim.eps,
        schedule=optim.schedule,
        warmup_steps=warmup,
        final_lr_share=optim.final_lr_share,
    )


def feature_names(recipe: Recipe, model: Any, processor: Any) -> FeatureNames | None:
    """The recipe's cache of vision features; None when it has none."""
    place = cache_place(recipe.data.feature_cache)
    if place is None:
        return None
    body = bare_model(model).model
    return FeatureNames(place, fingerprint(body, processor, _precision(recipe)))


def data_module(
    recipe: Recipe,
    processor: Any,
    train_items: list[Item],
    val_items: list[Item],
    features: FeatureNames | None = None,
) -> MolmoDataModule:
    """Batches of the recipe's items."""
    make = partial(
        TrainingSet,
        processor=processor,
        limits=limits_of(recipe),
        weighting=recipe.loss.weighting,
        cache_bytes=recipe.data.cache_mb * 1_000_000,
        features=features,
        quarantine=True,
    )
    return MolmoDataModule(
        make(train_items),
        make(val_items) if val_items else None,
        pad_id=int(processor.tokenizer.pad_token_id),
        num_batches=recipe.trainer.max_steps * recipe.trainer.accumulate_grad_batches,
        batch_size=recipe.trainer.batch_size,
        num_workers=recipe.data.num_workers,
        prefetch=recipe.data.prefetch,
        seed=recipe.seed,
        shuffle=recipe.data.shuffle,
        pack_limits=pack_limits_of(recipe),
    )


def build_trainer(
    recipe: Recipe, run: RunFolder, callbacks: list[Callback], *, has_val: bool
) -> L.Trainer:
    """Lightning's trainer with the recipe's settings, under Lightning's own names."""
    settings = recipe.trainer
    every = recipe.eval.every_steps if has_val else None
    checkpoints = ModelCheckpoint(
        dirpath=run.checkpoints,
        filename="step{step:06d}",
        auto_insert_metric_name=False,
        every_n_train_steps=min(MAX_STEPS_AT_RISK, max(1, settings.max_steps // 4)),
        save_top_k=recipe.output.keep,
        monitor="step",
        mode="max",
        save_last=True,
        save_on_train_epoch_end=False,
    )
    return L.Trainer(
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val,
        precision=_precision(recipe),
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=_strategy(settings),
        val_check_interval=every * settings.accumulate_grad_batches if every else None,
        limit_val_batches=1.0 if every else 0,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every_n_steps,
        use_distributed_sampler=False,
        callbacks=[checkpoints, SaveAdapter(run), RefuseDeadAdapters(), *callbacks],
        logger=False,
        enable_model_summary=False,
        default_root_dir=str(run.root),
    )


def _strategy(settings: TrainerSection) -> Any:
    if settings.strategy != "fsdp":
        return settings.strategy
    return sharding_strategy(
        settings.devices if settings.devices != "auto" else max(1, torch.cuda.device_count())
    )


def _precision(recipe: Recipe) -> Any:
    if recipe.trainer.precision != "auto":
        return recipe.trainer.precision
    dtype = resolve_dtype(recipe.model.dtype)
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(dtype, "32-true")


def _attention(recipe: Recipe) -> Backend:
    on_gpu = recipe.trainer.accelerator != "cpu" and torch.cuda.is_available()
    computed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
    dtype = computed.get(_precision(recipe), torch.bfloat16)
    device = "cuda" if on_gpu else "cpu"
    return resolve_backend(recipe.model.attention, device=device, dtype=dtype)


def _callbacks(
    recipe: Recipe, run: RunFolder, processor: Any, val_items: list[Item]
) -> list[Callback]:
    every = recipe.eval.every_steps
    if every is None or not val_items:
        return []
    ask: Callable[..., Any] = partial(
        evaluate,
        processor=processor,
        items=val_items,
        limits=limits_of(recipe),
        max_new_tokens=recipe.eval.max_new_tokens,
        batch_size=recipe.eval.batch_size,
        max_questions=recipe.eval.max_samples,
    )
    return [EvaluateAnswers(every, ask)]


def _watch_media(
    console: Console, recipe: Recipe, items: list[Item], refused: list[Refused]
) -> WatchMedia:
    bad = {one.bad_medium: one.reason for one in refused if one.bad_medium}
    paths = {str(item.sample.media.paths[0]) for item in items if item.sample.media.paths}
    return WatchMedia(console, len(paths | bad.keys()), recipe.data.max_bad_media, bad)


def _require_caches(recipe: Recipe) -> None:
    for name in ("frame_cache", "feature_cache"):
        place = cache_place(getattr(recipe.data, name))
        if place is not None:
            store_at(place).require(f"data.{name}.dir")


def _checkpoint_to_resume(run: RunFolder, resume: bool) -> Any:
    if resume and not run.last_checkpoint.is_file():
        raise UserError(run.root, "nothing to resume from", f"{run.last_checkpoint}")
    if not resume and run.recipe.is_file() and _is_first_process():
        raise UserError(
            run.root,
            "already holds a run",
            "a new folder",
            "change output.dir, remove the folder, or continue it with --resume",
        )
    return run.last_checkpoint if resume else None


def _is_first_process() -> bool:
    """Whether the run folder is this process's to make and fill; the others find it made."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def _print_left_out(console: Console, refused: list[Refused]) -> None:
    by_reason: dict[str, list[Refused]] = {}
    for one in refused:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, ones in by_reason.items():
        first = ", ".join(f"{one.sample_id} ({one.label})" for one in ones[:3])
        console.print(f"left out {len(ones)}: {reason}: {first}", highlight=False)


def _print_packing(console: Console, recipe: Recipe, items: list[Item]) -> None:
    figures = measure_packing(items, recipe)
    if figures is not None:
        console.print(f"packing: {figures}", highlight=False)


def _print_parameters(console: Console, module: MolmoModule, recipe: Recipe) -> None:
    for part, total, trained in parameter_table(module.model):
        share = f"{100 * trained / total:.2f} %" if total else "-"
        console.print(f"{part:<10}{total:>16,}  trainable {trained:>12,}  {share}", highlight=False)
    dtype = str(module.bare_model.lm_head.weight.dtype).removeprefix("torch.")
    small = f", language model in {recipe.model.quantize}" if recipe.model.quantize else ""
    console.print(
        f"{recipe.adapter.method} on {', '.join(recipe.adapter.targets)}; base in {dtype}{small}; "
        f"{_precision(recipe)}; attention {backend_of(module.bare_model)}",
        highlight=False,
    )


def _quiet_libraries() -> None:
    """Silence notices about choices made on purpose; errors still come through."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists.*")
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start.*")
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing. is deprecated.*")
    warnings.filterwarnings("ignore", message=".*isn't iterable.*|.*LeafSpec.*|.*GPU available.*")
