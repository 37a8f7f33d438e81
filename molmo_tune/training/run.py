"""The composition root: a recipe in, a trained run folder out.

Only here do the rooms meet: labels become items, the model gets its adapters, Lightning gets both.
Labels, media and settings fail before the model is loaded, and the run folder is not touched until
it is. The run's report says what was trained on what and what was left out.
"""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from molmo_tune.atomic_files import write_json, write_text
from molmo_tune.encoding.items import Item, Refused
from molmo_tune.encoding.media_inputs import FeatureNames
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import (
    SourceShare,
    cache_place,
    measure_packing,
    pack_limits_of,
    read_items,
    source_shares,
)
from molmo_tune.errors import UserError
from molmo_tune.media.array_cache import cache_at
from molmo_tune.model.adapters import keep_start, parameter_table
from molmo_tune.model.attention_backends import backend_of
from molmo_tune.model.loading import load_processor
from molmo_tune.preference.pairs_file import write_pairs
from molmo_tune.recipe.saving import dump_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.builders import (
    build_model,
    build_module,
    build_trainer,
    data_module,
    evaluation_callbacks,
    feature_names,
    precision_of,
    trained_base,
)
from molmo_tune.training.callbacks import RecordFigures, RecordLosses
from molmo_tune.training.data_wait import RecordDataWait
from molmo_tune.training.media_monitor import MediaMonitor
from molmo_tune.training.module import MolmoModule
from molmo_tune.training.pack_fill import RecordPacks
from molmo_tune.training.preference import (
    Pairing,
    make_pairs,
    require_begun,
    stored_pairs,
    with_reference,
)
from molmo_tune.training.preference_module import FIGURES, PreferenceModule
from molmo_tune.training.progress import StepProgress
from molmo_tune.training.run_report import TrainingResult, write_metrics, write_report


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
    require_begun(recipe, processor)
    train_items, refused = read_items(recipe.data.train, recipe, processor)
    val_items, val_refused = read_items(recipe.data.val, recipe, processor)
    _print_left_out(console, refused + val_refused)
    shares = source_shares(train_items, recipe)
    _print_shares(console, shares)
    _print_packing(console, recipe, train_items)
    media = _watch_media(console, recipe, train_items, refused)
    _require_caches(recipe)
    model = build_model(recipe)
    names = feature_names(recipe, model, processor)
    module = build_module(recipe, model, cache_at(names.place) if names is not None else None)
    _print_parameters(console, module, recipe)
    pairing, sequences, references = None, train_items, None
    if isinstance(module, PreferenceModule):
        pairing = _paired(recipe, run, module, processor, train_items, names, console, resume)
        sequences, references = pairing.sequences(), pairing.references()
        refused += pairing.bad
        media = _watch_media(console, recipe, train_items, refused)
    if _is_first_process():
        _open_folder(run, recipe, model, processor)
        if pairing is not None:
            write_pairs(run.pairs, pairing.mined, train_items)
    data = data_module(recipe, processor, sequences, val_items, names, references=references)
    record, wait, packs = RecordLosses(), RecordDataWait(), _record_packs(recipe)
    preferred = RecordFigures(FIGURES if pairing is not None else ())
    callbacks = [record, wait, preferred, media, StepProgress(console)]
    callbacks += evaluation_callbacks(recipe, processor, val_items)
    callbacks += [packs] if packs is not None else []
    trainer = build_trainer(recipe, run, callbacks, has_val=bool(val_items))
    started = time.perf_counter()
    trainer.fit(module, data, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=False)
    seconds = time.perf_counter() - started
    _, total, trained = parameter_table(model)[-1]
    result = TrainingResult(
        run, trainer.global_step, tuple(record.losses), trained / total, seconds
    )
    if _is_first_process():
        media.print_summary()
        write_metrics(run, record.losses, {"data_wait": wait.by_step, **preferred.by_step}, resume)
        figures: dict[str, Any] = {
            "sources": [
                {"path": str(one.source.path), "share": one.share, "per_epoch": one.repeats}
                for one in shares
            ]
            or None,
            "packing": packs.figures() if packs is not None else None,
            "media": media.figures(),
            "data_wait": wait.figures(),
        }
        if pairing is not None:
            figures["preference"] = pairing.figures() | preferred.figures()
        write_report(result, recipe, train_items, val_items, refused + val_refused, figures)
    return result


def _open_folder(
    run: RunFolder, recipe: Recipe, model: torch.nn.Module, processor: Processor
) -> None:
    """Make the run's folder and write what is known before training."""
    run.create()
    write_text(run.recipe, dump_recipe(recipe))
    keep_start(model, run.adapter)
    write_json(run.base, trained_base(recipe, model, processor))


def _paired(
    recipe: Recipe,
    run: RunFolder,
    module: PreferenceModule,
    processor: Processor,
    items: list[Item],
    names: FeatureNames | None,
    console: Console,
    resume: bool,
) -> Pairing:
    """The pairs to train on, told on the console: made now, or those a resumed run began with."""
    if resume:
        pairing = stored_pairs(recipe, run, processor, items)
    else:
        pairing = make_pairs(recipe, module.model, processor, items, console)
        pairing = with_reference(pairing, recipe, module, processor, items, names)
    console.print(f"preference: {pairing.mined.explained()}", highlight=False)
    return pairing


def _watch_media(
    console: Console, recipe: Recipe, items: list[Item], refused: list[Refused]
) -> MediaMonitor:
    bad = {one.bad_medium: one.reason for one in refused if one.bad_medium}
    paths = {str(item.sample.media.paths[0]) for item in items if item.sample.media.paths}
    return MediaMonitor(console, len(paths | bad.keys()), recipe.data.max_unreadable_media, bad)


def _record_packs(recipe: Recipe) -> RecordPacks | None:
    limits = pack_limits_of(recipe)
    return RecordPacks(limits) if limits is not None else None


def _require_caches(recipe: Recipe) -> None:
    for name in ("frame_cache", "feature_cache"):
        place = cache_place(getattr(recipe.data, name))
        if place is not None:
            cache_at(place).require(f"data.{name}.dir")


def _checkpoint_to_resume(run: RunFolder, resume: bool) -> Path | None:
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


def _print_shares(console: Console, shares: list[SourceShare]) -> None:
    if shares:
        listed = ", ".join(f"{one.source.path} {one.share:.1%}" for one in shares)
        console.print(f"sources: {listed} of samples", highlight=False)


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
        f"{precision_of(recipe)}; attention {backend_of(module.bare_model)}",
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
