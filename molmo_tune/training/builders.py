"""What training is made of, each part as the recipe describes it: model, data, optimizer, trainer.

One function per part, so that tests and benchmarks build just the part they ask about. Nothing here
prints, writes or decides an order; `molmo_tune.training.run` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from numpy.typing import NDArray

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.media_inputs import FeatureNames
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import (
    cache_place,
    limits_of,
    mixture_of,
    pack_limits_of,
)
from molmo_tune.evaluation.evaluate import evaluate
from molmo_tune.media.array_cache import ArrayCache
from molmo_tune.model.adapters import add_adapter, bare_model
from molmo_tune.model.attention_backends import (
    Backend,
    resolve_backend,
    use_backend,
)
from molmo_tune.model.checkpointing import checkpoint_layers
from molmo_tune.model.feature_cache import fingerprint
from molmo_tune.model.fingerprint import base_identity, decoder_identity, require_same_base
from molmo_tune.model.loading import load_model, resolve_dtype
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.resume_adapter import continue_adapter
from molmo_tune.preference.pair_set import PairSet, collate_pairs
from molmo_tune.recipe.sections import Recipe, TrainerSection
from molmo_tune.run_folder import RunFolder, read_json
from molmo_tune.training.callbacks import (
    EvaluateAnswers,
    RefuseDeadAdapters,
    SaveAdapter,
)
from molmo_tune.training.data import MolmoDataModule
from molmo_tune.training.fsdp import sharding_strategy
from molmo_tune.training.module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings
from molmo_tune.training.preference_module import PreferenceModule

WARMUP_SHARE = 0.03
MAX_STEPS_AT_RISK = 100  # a crash costs at most so many optimizer steps


def build_model(recipe: Recipe) -> torch.nn.Module:
    """Base model with fresh adapters, or those of the run to go on from, as the recipe says.

    ``auto`` precision follows the dtype: adapters are kept in float32 beside a 16-bit base.
    """
    base = load_model(
        recipe.model.name,
        dtype=resolve_dtype(recipe.model.dtype),
        quantize=recipe.model.quantize,
    )
    return prepare(base, recipe)


def prepare(base: Molmo, recipe: Recipe) -> torch.nn.Module:
    """A base made ready for training: attention, adapters and checkpointing of the recipe."""
    use_backend(base, _attention(recipe))
    adapter = recipe.adapter
    described: dict[str, Any] = {
        "method": adapter.method,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": adapter.targets,
        "rslora": adapter.rslora,
    }
    if recipe.preference is not None:
        begun = RunFolder(recipe.preference.from_run)
        require_same_base(read_json(begun.base), decoder_identity(base), begun.base)
        model = continue_adapter(base, begun.adapter, **described)
    else:
        model = add_adapter(base, dropout=adapter.dropout, **described)
    if recipe.trainer.gradient_checkpointing:
        checkpoint_layers(base, recipe.trainer.checkpointed_parts)
    return model.train()


def trained_base(recipe: Recipe, model: torch.nn.Module, processor: Processor) -> dict[str, str]:
    """Digests of the base of a model that is not trained yet; see `model.identity`.

    Where a run goes on from another they are taken from there: with ``full`` that run has changed
    the weights themselves.
    """
    if recipe.preference is None:
        return base_identity(model, processor)
    recorded: dict[str, str] = read_json(RunFolder(recipe.preference.from_run).base)
    return recorded


def build_module(
    recipe: Recipe, model: torch.nn.Module, known_features: ArrayCache | None
) -> MolmoModule:
    """The model with the recipe's loss: of labels' answers, or of pairs."""
    optim, offload = optim_settings(recipe), recipe.trainer.offload_activations
    if recipe.preference is None:
        return MolmoModule(
            model,
            optim,
            z_loss=recipe.loss.z_loss,
            offload_activations=offload,
            known_features=known_features,
        )
    return PreferenceModule(
        model,
        optim,
        beta=recipe.preference.beta,
        supervised_weight=recipe.preference.supervised_weight,
        offload_activations=offload,
        known_features=known_features,
    )


def optim_settings(recipe: Recipe) -> OptimSettings:
    """The recipe's optimizer section with the length of the run."""
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
        min_lr_ratio=optim.min_lr_ratio,
    )


def feature_names(
    recipe: Recipe, model: torch.nn.Module, processor: Processor
) -> FeatureNames | None:
    """The recipe's cache of vision features; None when it has none."""
    place = cache_place(recipe.data.feature_cache)
    if place is None:
        return None
    body = bare_model(model).model
    return FeatureNames(place, fingerprint(body, processor, precision_of(recipe)))


def data_module(
    recipe: Recipe,
    processor: Processor,
    train_items: list[Item],
    val_items: list[Item],
    features: FeatureNames | None = None,
    references: Sequence[NDArray[np.float32]] | None = None,
) -> MolmoDataModule:
    """Batches of the recipe's items; with references the items to train on are trees of pairs."""
    options: dict[str, Any] = {
        "processor": processor,
        "limits": limits_of(recipe),
        "weighting": recipe.loss.weighting,
        "cache_bytes": recipe.data.cache_mb * 1_000_000,
        "features": features,
        "quarantine": True,
    }
    train = (
        PairSet(train_items, references=references, **options)
        if references is not None
        else TrainingSet(train_items, **options)
    )
    return MolmoDataModule(
        train,
        TrainingSet(val_items, **options) if val_items else None,
        join=collate_pairs if references is not None else collate,
        pad_id=int(processor.tokenizer.pad_token_id),
        num_batches=recipe.trainer.max_steps * recipe.trainer.accumulate_grad_batches,
        batch_size=recipe.trainer.batch_size,
        num_workers=recipe.data.num_workers,
        prefetch=recipe.data.prefetch,
        seed=recipe.seed,
        shuffle=recipe.data.shuffle,
        mixture=mixture_of(train_items, recipe),
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
        save_top_k=recipe.output.save_total_limit,
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
        precision=precision_of(recipe),
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


def precision_of(recipe: Recipe) -> Any:
    """Lightning's name for the precision; ``auto`` follows the type of the weights."""
    if recipe.trainer.precision != "auto":
        return recipe.trainer.precision
    dtype = resolve_dtype(recipe.model.dtype)
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(dtype, "32-true")


def _attention(recipe: Recipe) -> Backend:
    on_gpu = recipe.trainer.accelerator != "cpu" and torch.cuda.is_available()
    computed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
    dtype = computed.get(precision_of(recipe), torch.bfloat16)
    if not on_gpu:
        return resolve_backend(recipe.model.attention, device="cpu", dtype=dtype)
    capability = torch.cuda.get_device_capability()
    return resolve_backend(
        recipe.model.attention, device="cuda", dtype=dtype, capability=capability
    )


def evaluation_callbacks(
    recipe: Recipe, processor: Processor, val_items: list[Item]
) -> list[Callback]:
    """Answers to the validation questions during training, if the recipe wants them."""
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
        max_questions=recipe.eval.max_questions,
    )
    return [EvaluateAnswers(every, ask)]
