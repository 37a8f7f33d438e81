"""Rules between two keys of a recipe: settings that are valid alone but not together.

Each would otherwise pass silently: a learning rate for a frozen component, an evaluation that never
happens. The loader also applies these rules to the valid part of an invalid recipe, so
`Conflict.keys` lists every key that a rule reads; rules that read invalid values are not reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from molmo_tune.recipe.issues import KeyPath, dotted
from molmo_tune.recipe.sections import Recipe


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two or more settings that exclude each other; the first key is the one to change."""

    keys: tuple[KeyPath, ...]
    reason: str

    @property
    def key(self) -> KeyPath:
        """The key that the conflict is reported at."""
        return self.keys[0]


def conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """Yield all settings in ``recipe`` that exclude each other."""
    yield from _warmup_ends(recipe)
    yield from _component_settings_have_an_effect(recipe)
    yield from _evaluation_happens(recipe)
    yield from _videos_fit_packs(recipe)
    yield from _method_fits(recipe)
    yield from _fsdp_is_supported(recipe)
    yield from _cached_features_stay_valid(recipe)
    yield from _preference_is_supported(recipe)
    yield from _weights_are_used(recipe)


def _warmup_ends(recipe: Recipe) -> Iterator[Conflict]:
    optim, max_steps = recipe.optim, recipe.trainer.max_steps
    warmup = optim.warmup_steps or 0
    if optim.schedule != "constant" and warmup >= max_steps:
        yield Conflict(
            (("optim", "warmup_steps"), ("optim", "schedule"), ("trainer", "max_steps")),
            f"must be less than trainer.max_steps ({max_steps}), "
            f"not {optim.warmup_steps}: the learning rate would never reach its peak",
        )


def _component_settings_have_an_effect(recipe: Recipe) -> Iterator[Conflict]:
    for part in ("connector", "vision"):
        for kind in ("lr", "weight_decay"):
            key = f"{kind}_{part}"
            if getattr(recipe.optim, key) is not None and part not in recipe.adapter.targets:
                yield Conflict(
                    (("optim", key), ("adapter", "targets")),
                    f"has no effect: adapter.targets lacks {part}; add it or remove {key}",
                )


def _evaluation_happens(recipe: Recipe) -> Iterator[Conflict]:
    every, max_steps = recipe.eval.every_steps, recipe.trainer.max_steps
    key = ("eval", "every_steps")
    if every is None:
        return
    if every > max_steps:
        yield Conflict(
            (key, ("trainer", "max_steps")),
            f"must be at most trainer.max_steps ({max_steps}), "
            f"not {every}: no evaluation would take place",
        )
    if not recipe.data.val:
        yield Conflict(
            (key, ("data", "val")),
            "needs validation data: data.val is empty; add sources to it or remove every_steps",
        )


def _videos_fit_packs(recipe: Recipe) -> Iterator[Conflict]:
    limit, max_frames = recipe.data.max_crops_per_pack, recipe.video.max_frames
    key = ("data", "max_crops_per_pack")
    if recipe.data.packing and max_frames > limit:
        yield Conflict(
            (key, ("data", "packing"), ("video", "max_frames")),
            f"must be at least video.max_frames ({max_frames}), not {limit}: "
            "long videos would not fit in a pack",
        )


def _method_fits(recipe: Recipe) -> Iterator[Conflict]:
    method, quantize = recipe.adapter.method, recipe.model.quantize
    keys: tuple[KeyPath, ...] = (("adapter", "method"),)
    if quantize and method in ("full", "pissa"):
        yield Conflict(
            (*keys, ("model", "quantize")),
            f"{method} changes the base weights, which model.quantize: {quantize} freezes; "
            "use lora or dora, or remove model.quantize",
        )
    if quantize == "int8" and method == "dora":
        yield Conflict(
            (*keys, ("model", "quantize")),
            "dora needs the norms of the weights, which PEFT cannot compute from int8; "
            "use model.quantize: nf4, or method lora",
        )
    if recipe.adapter.rslora and method in ("full", "pissa"):
        yield Conflict(
            (*keys, ("adapter", "rslora")), f"{method} ignores adapter.rslora; remove it"
        )
    if recipe.optim.lora_plus_ratio is not None and method == "full":
        yield Conflict(
            (*keys, ("optim", "lora_plus_ratio")),
            "full has no A and B matrices for optim.lora_plus_ratio; remove it",
        )


def _fsdp_is_supported(recipe: Recipe) -> Iterator[Conflict]:
    """What FSDP cannot shard, and what needs all weights on one device."""
    if recipe.trainer.strategy != "fsdp":
        return
    strategy: KeyPath = ("trainer", "strategy")
    rules: tuple[tuple[bool, KeyPath, str], ...] = (
        (recipe.model.quantize is not None, ("model", "quantize"), "quantized weights"),
        (recipe.optim.name != "adamw", ("optim", "name"), "an 8-bit optimizer state"),
        (recipe.adapter.method == "pissa", ("adapter", "method"), "PiSSA initialization"),
        (recipe.eval.every_steps is not None, ("eval", "every_steps"), "answer generation"),
    )
    for is_broken, key, what in rules:
        if is_broken:
            yield Conflict(
                (key, strategy),
                f"{what} cannot be sharded with trainer.strategy: fsdp; "
                f"use ddp, or keep the default of {dotted(key)}",
            )


def _cached_features_stay_valid(recipe: Recipe) -> Iterator[Conflict]:
    trained = [part for part in recipe.adapter.targets if part != "language"]
    if recipe.data.feature_cache.dir is not None and trained:
        yield Conflict(
            (("data", "feature_cache", "dir"), ("adapter", "targets")),
            f"needs a frozen vision tower and connector, but adapter.targets has "
            f"{' and '.join(trained)}: features would change at every step; "
            "use frame_cache, or train language alone",
        )


def _preference_is_supported(recipe: Recipe) -> Iterator[Conflict]:
    """Settings that are meaningless or not yet supported for pairs of answers."""
    if recipe.preference is None:
        return
    adapter, data, trainer = recipe.adapter, recipe.data, recipe.trainer
    rules: tuple[tuple[bool, KeyPath, str], ...] = (
        (
            adapter.dropout > 0,
            ("adapter", "dropout"),
            f"must be 0 with preference, not {adapter.dropout:g}: the model must start equal to "
            "the reference, which has no dropout",
        ),
        (
            adapter.method == "pissa",
            ("adapter", "method"),
            "pissa cannot be continued by preference: its run is saved as plain LoRA; "
            "use lora with twice the rank and alpha",
        ),
        (data.packing, ("data", "packing"), "is not supported with preference; remove it"),
        (
            recipe.loss.weighting != "flat",
            ("loss", "weighting"),
            "has no effect with preference, where all pairs weigh the same; remove it",
        ),
        (
            trainer.devices != 1 or trainer.strategy == "fsdp",
            ("trainer", "devices"),
            "must be 1 with preference, without trainer.strategy: fsdp: one process samples pairs",
        ),
    )
    for is_broken, key, reason in rules:
        others: tuple[KeyPath, ...] = (("preference", "from_run"),)  # represents the section
        if key == ("trainer", "devices"):
            others = (*others, ("trainer", "strategy"))
        if is_broken:
            yield Conflict((key, *others), reason)


def _weights_are_used(recipe: Recipe) -> Iterator[Conflict]:
    """Sampling weights: of training sources, and of supervised training only."""
    for key in _sampling_weights(recipe, "val"):
        yield Conflict((key,), "has no effect: evaluation puts every question once; remove it")
    if recipe.preference is not None:
        for key in _sampling_weights(recipe, "train"):
            yield Conflict(
                (key, ("preference", "from_run")),
                "is not supported with preference, where every answer pair comes once per epoch; "
                "remove it",
            )


def _sampling_weights(recipe: Recipe, split: str) -> Iterator[KeyPath]:
    """Keys of the weights that are set; the sources of a faulty recipe are missing or plain."""
    for number, source in enumerate(getattr(recipe.data, split, ())):
        weight = source.get("weight") if isinstance(source, dict) else source.weight
        if weight is not None:
            yield ("data", split, number, "weight")
