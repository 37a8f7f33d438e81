"""Each recipe key changes something that can be observed: the schema is walked, none is left out.

A row names a change of a key and what to look at: a function of the recipe whose result must differ
between the default and the change. The functions build the real parts of a run (items, sampler,
model, optimizer, trainer, batches, evaluation), so a key that nothing reads fails here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from rich.console import Console

from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.sources import cache_place, limits_of, read_items
from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.labels.formats.table.table import layout_of
from molmo_tune.model.adapters import bare_model, trainable_parameters
from molmo_tune.model.attention_backends import backend_of
from molmo_tune.model.loading import checkpoint_source, load_processor
from molmo_tune.recipe.keys import _section_in, all_keys
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.tiny.pond import write_pond
from molmo_tune.training.batches.data_module import build_data_module, dataset_options
from molmo_tune.training.callbacks.answer_evaluation import evaluation_callbacks
from molmo_tune.training.fit import _callbacks, _recorders
from molmo_tune.training.optimizers import build_optimizer, optim_settings
from molmo_tune.training.preference.pairing import _mining_settings
from molmo_tune.training.preference.run_preference import preference_module
from molmo_tune.training.prepare_model import PreparedModel, build_model
from molmo_tune.training.read_data import read_data
from molmo_tune.training.run import supervised_module
from molmo_tune.training.run_start import RunStart
from molmo_tune.training.schedule import lr_factor
from molmo_tune.training.trainer import build_trainer

Look = Callable[[Recipe], Any]


class Row(NamedTuple):
    """A change of a key, where to look, and settings that both sides have."""

    change: str
    look: Look
    beside: tuple[str, ...] = ()


def _items(recipe: Recipe) -> Any:
    items, refused = read_items(recipe.data.train, recipe, load_processor("tiny"))
    return [(item.sample.id, item.num_tokens, item.num_crops) for item in items], len(refused)


def _loss_weights(recipe: Recipe) -> Any:
    module = _batches(recipe)
    module.num_workers = 0
    return [float(batch.loss_weights.sum()) for batch in _first_batches(module, 2)]


def _first_batches(module: Any, count: int) -> list[Any]:
    loader = iter(module.train_dataloader())
    return [next(loader) for _ in range(count)]


def _prepared(recipe: Recipe) -> PreparedModel:
    return PreparedModel(build_model(recipe), None)


def _data(recipe: Recipe) -> Any:
    start = RunStart(recipe, Console(quiet=True), RunFolder(recipe.output.dir), None)
    return read_data(start, load_processor("tiny"))


def _batches(recipe: Recipe) -> Any:
    data = _data(recipe)
    options = dataset_options(recipe, data.processor, None)
    return build_data_module(recipe, TrainingSet(data.train, **options), data.val, options)


def _order(recipe: Recipe) -> Any:
    module = _batches(recipe)
    module.num_workers = 0
    return [batch.input_ids.tolist() for batch in _first_batches(module, 4)]


def _loader(recipe: Recipe) -> Any:
    loader = _batches(recipe).train_dataloader()
    return loader.num_workers, loader.prefetch_factor


def _cache_bytes(recipe: Recipe) -> Any:
    return dataset_options(recipe, load_processor("tiny"), None)["cache_bytes"]


def _trained(recipe: Recipe) -> Any:
    torch.manual_seed(0)
    model = build_model(recipe)
    shapes = [(name, tuple(p.shape)) for name, p in trainable_parameters(model)]
    layers = [m for m in model.modules() if hasattr(m, "scaling") and hasattr(m, "lora_dropout")]
    scale = layers[0].scaling["default"] if layers else None
    dropout = str(layers[0].lora_dropout["default"]) if layers else None
    methods = [type(m).__name__ for m in model.modules() if "Dora" in type(m).__name__]
    first = next(p for _, p in trainable_parameters(model)).detach().clone()
    return shapes, scale, dropout, len(methods), first.double().sum().item()


def _base_dtype(recipe: Recipe) -> Any:
    return bare_model(build_model(recipe)).model.language_model.embed_tokens.weight.dtype


def _attention(recipe: Recipe) -> Any:
    return backend_of(bare_model(build_model(recipe)))


def _quantized(recipe: Recipe) -> Any:
    return {type(m).__name__ for m in build_model(recipe).modules() if "Linear" in type(m).__name__}


def _checkpointed(recipe: Recipe) -> Any:
    model = build_model(recipe)
    return [n for n, m in model.named_modules() if getattr(m, "gradient_checkpointing", False)]


def _module(recipe: Recipe) -> Any:
    module = supervised_module(recipe, _prepared(recipe))
    return module.z_loss, module.offload_activations


def _groups(recipe: Recipe) -> Any:
    optimizer = build_optimizer(build_model(recipe), optim_settings(recipe))
    shown = ("lr", "weight_decay", "betas", "eps")
    return type(optimizer).__name__, [[g[name] for name in shown] for g in optimizer.param_groups]


def _schedule(recipe: Recipe) -> Any:
    return [lr_factor(optim_settings(recipe), step) for step in range(6)]


def _trainer(*names: str) -> Look:
    def look(recipe: Recipe) -> Any:
        trainer = build_trainer(recipe, RunFolder(recipe.output.dir), [], has_val=True)
        return [str(getattr(trainer, name)) for name in names]

    return look


def _requested(name: str) -> Look:
    """What Lightning is asked for, where no second device is at hand to take it."""

    def look(recipe: Recipe) -> Any:
        asked: dict[str, Any] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lightning.Trainer", lambda **given: asked.update(given))
            build_trainer(recipe, RunFolder(recipe.output.dir), [], has_val=True)
        return type(asked[name]).__name__, str(asked[name]) if name != "strategy" else None

    return look


def _kept_checkpoints(recipe: Recipe) -> Any:
    trainer = build_trainer(recipe, RunFolder(recipe.output.dir), [], has_val=True)
    saver = next(c for c in trainer.callbacks if hasattr(c, "save_top_k") or hasattr(c, "keep"))
    return getattr(saver, "save_top_k", None) or saver.keep, str(getattr(saver, "dirpath", ""))


def _evaluation(recipe: Recipe) -> Any:
    data = _data(recipe)
    (callback,) = evaluation_callbacks(recipe, data.processor, data.val)
    bound = callback._evaluate.keywords  # type: ignore[attr-defined]
    return callback._every_steps, {k: v for k, v in bound.items() if isinstance(v, int)}  # type: ignore[attr-defined]


def _has_evaluation(recipe: Recipe) -> Any:
    data = _data(recipe)
    return len(evaluation_callbacks(recipe, data.processor, data.val))


def _val_items(recipe: Recipe) -> Any:
    data = _data(recipe)
    return [(item.sample.id, item.num_tokens) for item in data.val]


def _log_interval(recipe: Recipe) -> Any:
    start = RunStart(recipe, Console(quiet=True), RunFolder(recipe.output.dir), None)
    data = _data(recipe)
    callbacks = _callbacks(start, data, _recorders(start, data, ()))
    progress = next(c for c in callbacks if type(c).__name__ == "StepProgress")
    return {k: v for k, v in vars(progress).items() if isinstance(v, int)}


def _limits(recipe: Recipe) -> Any:
    return str(limits_of(recipe))


def _cache(name: str) -> Look:
    return lambda recipe: str(cache_place(getattr(recipe.data, name)))


def _mining(recipe: Recipe) -> Any:
    return str(_mining_settings(recipe))


def _preference(recipe: Recipe) -> Any:
    module = preference_module(recipe, PreparedModel(torch.nn.Linear(1, 1), None))
    return module.beta, module.supervised_weight


def _source(_name: str) -> Look:
    """The layout that a table's reader gets; the reader's own tests show its effect."""

    def look(recipe: Recipe) -> Any:
        return str(layout_of(recipe.data.train[0]))

    return look


def _monitored(recipe: Recipe) -> Any:
    return _data(recipe).media._max_unreadable


VISION = ("adapter.targets=[language, connector, vision]",)
EVAL = ("eval.every_steps=2",)
TABLE = (
    "data.train.0.format=table",
    "data.train.0.columns.image=file",
    "data.train.0.columns.label=class",
    "data.train.0.columns.box=[a, b, c, d]",
    "data.train.0.units=pixel",
)
POINTS = (*TABLE[:3], "data.train.0.columns.point=[x, y]", TABLE[4])
PAIRS = ("preference.from_run=RUN", "adapter.dropout=0")

ROWS: dict[str, Row] = {
    "seed": Row("seed=8", _order),
    "model.name": Row("model.name=hub/other", lambda r: checkpoint_source(r.model.name)),
    "model.dtype": Row("model.dtype=bfloat16", _base_dtype),
    "model.attention": Row("model.attention=flex", _attention),
    "model.quantize": Row("model.quantize=nf4", _quantized),
    "adapter.method": Row("adapter.method=dora", _trained),
    "adapter.rank": Row("adapter.rank=5", _trained),
    "adapter.alpha": Row("adapter.alpha=99", _trained),
    "adapter.dropout": Row("adapter.dropout=0.4", _trained),
    "adapter.rslora": Row("adapter.rslora=true", _trained),
    "adapter.targets": Row("adapter.targets=[vision]", _trained),
    "data.train.0.format": Row(
        "data.train.0.format=jsonl", lambda r: FORMAT_MODULES[r.data.train[0].format]
    ),
    "data.train.0.path": Row("data.train.0.path=OTHER", _items),
    "data.train.0.media": Row("data.train.0.media=OTHER_MEDIA", _items),
    "data.train.0.template": Row("data.train.0.template=tracking", _items),
    "data.train.0.weight": Row("data.train.0.weight=3", _order, ("data.train=TWO",)),
    "data.train.0.loss_weight": Row("data.train.0.loss_weight=3", _loss_weights),
    "data.train.0.max_samples": Row("data.train.0.max_samples=1", _items),
    "data.train.0.columns.image": Row("data.train.0.columns.image=name", _source("c"), TABLE),
    "data.train.0.columns.label": Row("data.train.0.columns.label=kind", _source("c"), TABLE),
    "data.train.0.columns.box": Row("data.train.0.columns.box=[box]", _source("c"), TABLE),
    "data.train.0.columns.point": Row("data.train.0.columns.point=[xy]", _source("c"), POINTS),
    "data.train.0.units": Row("data.train.0.units=percent", _source("c"), TABLE),
    "data.train.0.box": Row("data.train.0.box=xywh", _source("c"), TABLE),
    "data.max_tokens": Row("data.max_tokens=150", _items),
    "data.packing": Row("data.packing=true", _order),
    "data.max_crops_per_pack": Row("data.max_crops_per_pack=8", _order, ("data.packing=true",)),
    "data.shuffle": Row("data.shuffle=false", _order),
    "data.num_workers": Row("data.num_workers=1", _loader),
    "data.prefetch": Row("data.prefetch=5", _loader, ("data.num_workers=1",)),
    "data.cache_mb": Row("data.cache_mb=7", _cache_bytes),
    "data.frame_cache.dir": Row("data.frame_cache.dir=FOLDER", _cache("frame_cache")),
    "data.frame_cache.max_gb": Row(
        "data.frame_cache.max_gb=1", _cache("frame_cache"), ("data.frame_cache.dir=FOLDER",)
    ),
    "data.feature_cache.dir": Row(
        "data.feature_cache.dir=FOLDER", _cache("feature_cache"), ("adapter.targets=[language]",)
    ),
    "data.feature_cache.max_gb": Row(
        "data.feature_cache.max_gb=1",
        _cache("feature_cache"),
        ("data.feature_cache.dir=FOLDER", "adapter.targets=[language]"),
    ),
    "data.max_unreadable_media": Row("data.max_unreadable_media=0.9", _monitored),
    "video.max_frames": Row("video.max_frames=2", _items),
    "video.max_fps": Row("video.max_fps=1", _items),
    "video.sampling": Row("video.sampling=fps", _limits),
    "video.decoder": Row("video.decoder=torchcodec", _limits),
    "video.timeout_s": Row("video.timeout_s=3", _limits),
    "image.max_crops": Row("image.max_crops=2", _limits),
    "loss.weighting": Row("loss.weighting=root_length", _loss_weights),
    "loss.z_loss": Row("loss.z_loss=0.1", _module),
    "optim.lr": Row("optim.lr=0.5", _groups),
    "optim.lr_connector": Row("optim.lr_connector=0.5", _groups, VISION),
    "optim.lr_vision": Row("optim.lr_vision=0.5", _groups, VISION),
    "optim.weight_decay": Row("optim.weight_decay=0.5", _groups),
    "optim.weight_decay_connector": Row("optim.weight_decay_connector=0.5", _groups, VISION),
    "optim.weight_decay_vision": Row("optim.weight_decay_vision=0.5", _groups, VISION),
    "optim.lora_plus_ratio": Row("optim.lora_plus_ratio=16", _groups),
    "optim.name": Row("optim.name=adamw_8bit", _groups),
    "optim.betas": Row("optim.betas=[0.5, 0.6]", _groups),
    "optim.eps": Row("optim.eps=0.1", _groups),
    "optim.schedule": Row("optim.schedule=constant", _schedule),
    "optim.warmup_steps": Row("optim.warmup_steps=3", _schedule),
    "optim.min_lr_ratio": Row("optim.min_lr_ratio=0.7", _schedule),
    "trainer.max_steps": Row("trainer.max_steps=9", _trainer("max_steps")),
    "trainer.accumulate_grad_batches": Row(
        "trainer.accumulate_grad_batches=3", _trainer("accumulate_grad_batches")
    ),
    "trainer.batch_size": Row("trainer.batch_size=2", _order),
    "trainer.gradient_clip_val": Row(
        "trainer.gradient_clip_val=0.2", _trainer("gradient_clip_val")
    ),
    "trainer.precision": Row("trainer.precision=bf16-mixed", _trainer("precision")),
    "trainer.accelerator": Row("trainer.accelerator=gpu", _requested("accelerator")),
    "trainer.devices": Row("trainer.devices=2", _requested("devices")),
    "trainer.strategy": Row(
        "trainer.strategy=fsdp", _requested("strategy"), ("trainer.devices=2",)
    ),
    "trainer.log_every_n_steps": Row("trainer.log_every_n_steps=3", _log_interval),
    "trainer.gradient_checkpointing": Row("trainer.gradient_checkpointing=true", _checkpointed),
    "trainer.checkpointed_parts": Row(
        "trainer.checkpointed_parts=[vision]",
        _checkpointed,
        ("trainer.gradient_checkpointing=true",),
    ),
    "trainer.offload_activations": Row("trainer.offload_activations=true", _module),
    "preference.from_run": Row("preference.from_run=OTHER", lambda r: r.preference, PAIRS),
    "preference.beta": Row("preference.beta=0.7", _preference, PAIRS),
    "preference.min_f1_gap": Row("preference.min_f1_gap=0.7", _mining, PAIRS),
    "preference.pairs_per_question": Row("preference.pairs_per_question=5", _mining, PAIRS),
    "preference.supervised_weight": Row("preference.supervised_weight=3", _preference, PAIRS),
    "preference.max_questions": Row("preference.max_questions=3", _mining, PAIRS),
    "eval.every_steps": Row("eval.every_steps=2", _has_evaluation),
    "eval.max_questions": Row("eval.max_questions=9", _evaluation, EVAL),
    "eval.max_new_tokens": Row("eval.max_new_tokens=9", _evaluation, EVAL),
    "eval.batch_size": Row("eval.batch_size=3", _evaluation, EVAL),
    "output.dir": Row("output.dir=elsewhere", lambda r: str(RunFolder(r.output.dir).adapter)),
    "output.save_total_limit": Row("output.save_total_limit=5", _kept_checkpoints),
}
SEEN_ELSEWHERE = {
    "export.dtype": "tests/test_export.py reads the type of the exported tensors",
    "data.val.0.weight": "refused: only training samples sources",
    "data.val.0.loss_weight": "weighs the validation loss as data.train.0.loss_weight does",
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two more clips with labels."""
    folder = tmp_path_factory.mktemp("other")
    write_pond(folder, num_clips=2, seed=9, on_clip=lambda: None)
    return folder


@pytest.fixture
def places(pond: Path, other: Path, tmp_path: Path) -> Callable[[str], str]:
    """Paths for the capital words in the rows."""
    media = tmp_path / "media"
    shutil.copytree(pond / "clips", media)
    next(media.iterdir()).unlink()
    template = "format: cvat_video, path: {0}/labels, media: {0}/clips"
    two = "[" + ", ".join(f"{{{template.format(one)}}}" for one in (pond, other)) + "]"
    words = {
        "OTHER_MEDIA": str(media),
        "OTHER": str(other / "labels"),
        "TWO": two,
        "FOLDER": str(tmp_path / "cache"),
        "RUN": str(tmp_path / "earlier"),
    }

    def filled(override: str) -> str:
        key, _, value = override.partition("=")
        return f"{key}={words.get(value, value)}"

    return filled


def _leaves() -> list[str]:
    return [key for key, field in all_keys().items() if _section_in(field) is None]


def _row_of(key: str) -> str:
    """Sources of data.val have the keys of data.train's, read by the same function."""
    return key.replace("data.val.0", "data.train.0")


def test_every_key_of_the_schema_has_a_row() -> None:
    rows = set(ROWS) | set(SEEN_ELSEWHERE)
    missing = [key for key in _leaves() if key not in SEEN_ELSEWHERE and _row_of(key) not in rows]
    assert not missing
    assert not set(ROWS) - set(_leaves()), "rows of keys that do not exist"


@pytest.mark.slow
@pytest.mark.parametrize("key", ROWS)
def test_changing_a_key_changes_something(key: str, pond_recipe: Path, places: Any) -> None:
    row = ROWS[key]
    beside = [places(one) for one in row.beside]
    default = load_recipe(pond_recipe, beside)
    changed = load_recipe(pond_recipe, [*beside, places(row.change)])
    assert row.look(default) == row.look(default), "the observation itself is not repeatable"
    assert row.look(default) != row.look(changed)
