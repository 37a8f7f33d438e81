"""Rules that concern two keys of a recipe: settings that are sound alone but not together.

Each would otherwise pass silently: a rate for a part that is frozen, an evaluation that never
comes. The loader also runs these rules over what is left of a faulty recipe, so every value that a
rule reads is named in `Contradiction.keys`; a rule that read a faulty value is then not reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from molmo_tune.recipe.issues import KeyPath

if TYPE_CHECKING:
    from molmo_tune.recipe.sections import Recipe


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two or more settings that exclude each other; the first key is the one to look at."""

    keys: tuple[KeyPath, ...]
    reason: str

    @property
    def key(self) -> KeyPath:
        """The key that the fault is reported at."""
        return self.keys[0]


def conflicts(recipe: Recipe) -> Iterator[Conflict]:
    """All pairs of settings in ``recipe`` that cannot both be meant."""
    yield from _warmup_ends(recipe)
    yield from _rates_are_used(recipe)
    yield from _evaluation_happens(recipe)
    yield from _videos_fit_packs(recipe)
    yield from _method_agrees(recipe)
    yield from _shares_are_possible(recipe)
    yield from _features_stay(recipe)
    yield from _pairs_can_be_trained(recipe)
    yield from _weights_are_used(recipe)


def _warmup_ends(recipe: Recipe) -> Iterator[Conflict]:
    optim, max_steps = recipe.optim, recipe.trainer.max_steps
    warmup = optim.warmup_steps or 0
    if optim.schedule != "constant" and warmup >= max_steps:
        yield Conflict(
            (("optim", "warmup_steps"), ("optim", "schedule"), ("trainer", "max_steps")),
            f"must be less than trainer.max_steps, which is {max_steps}, "
            f"not {optim.warmup_steps}: the learning rate would never reach its peak",
        )


def _rates_are_used(recipe: Recipe) -> Iterator[Conflict]:
    for part in ("connector", "vision"):
        for kind in ("lr", "weight_decay"):
            key = f"{kind}_{part}"
            if getattr(recipe.optim, key) is not None and part not in recipe.adapter.targets:
                yield Conflict(
                    (("optim", key), ("adapter", "targets")),
                    f"has no effect, because adapter.targets does not name {part}; "
                    f"name it there or leave {key} out",
                )


def _evaluation_happens(recipe: Recipe) -> Iterator[Conflict]:
    every, max_steps = recipe.eval.every_steps, recipe.trainer.max_steps
    key = ("eval", "every_steps")
    if every is None:
        return
    if every > max_steps:
        yield Conflict(
            (key, ("trainer", "max_steps")),
            f"must be at most trainer.max_steps, which is {max_steps}, "
            f"not {every}: no evaluation would take place",
        )
    if not recipe.data.val:
        yield Conflict(
            (key, ("data", "val")),
            "needs something to evaluate on, and data.val is empty; "
            "fill data.val or leave every_steps out",
        )


def _videos_fit_packs(recipe: Recipe) -> Iterator[Conflict]:
    limit, max_frames = recipe.data.max_crops_per_pack, recipe.video.max_frames
    key = ("data", "max_crops_per_pack")
    if recipe.data.packing and max_frames > limit:
        yield Conflict(
            (key, ("data", "packing"), ("video", "max_frames")),
            f"must be at least video.max_frames, which is {max_frames}, not {limit}: "
            "long videos would fit no pack",
        )


def _method_agrees(recipe: Recipe) -> Iterator[Conflict]:
    method, quantize = recipe.adapter.method, recipe.model.quantize
    keys: tuple[KeyPath, ...] = (("adapter", "method"),)
    if quantize and method in ("full", "pissa"):
        yield Conflict(
            (*keys, ("model", "quantize")),
            f"{method} changes the base's weights, which model.quantize: {quantize} freezes in few "
            "bits; use lora or dora, or leave model.quantize out",
        )
    if quantize == "int8" and method == "dora":
        yield Conflict(
            (*keys, ("model", "quantize")),
            "dora needs the weights' lengths, which PEFT cannot read from 8 bits; "
            "use model.quantize: nf4, or method lora",
        )
    if recipe.adapter.rslora and method in ("full", "pissa"):
        yield Conflict(
            (*keys, ("adapter", "rslora")), f"{method} has no use for adapter.rslora; leave it out"
        )
    if recipe.optim.lora_plus_ratio is not None and method == "full":
        yield Conflict(
            (*keys, ("optim", "lora_plus_ratio")),
            "full has no A and B matrices for optim.lora_plus_ratio; leave it out",
        )


def _shares_are_possible(recipe: Recipe) -> Iterator[Conflict]:
    """What FSDP cannot spread over devices, and what only one device could do."""
    if recipe.trainer.strategy != "fsdp":
        return
    strategy: KeyPath = ("trainer", "strategy")
    faults: tuple[tuple[bool, KeyPath, str], ...] = (
        (recipe.model.quantize is not None, ("model", "quantize"), "quantized weights"),
        (recipe.optim.name != "adamw", ("optim", "name"), "an 8-bit optimizer's state"),
        (recipe.adapter.method == "pissa", ("adapter", "method"), "PiSSA's start"),
        (recipe.eval.every_steps is not None, ("eval", "every_steps"), "generating answers"),
    )
    for is_so, key, what in faults:
        if is_so:
            yield Conflict(
                (key, strategy),
                f"{what} cannot be split over devices as trainer.strategy: fsdp asks; "
                f"use ddp, or leave {'.'.join(map(str, key))} as it is by default",
            )


def _features_stay(recipe: Recipe) -> Iterator[Conflict]:
    trained = [part for part in recipe.adapter.targets if part != "language"]
    if recipe.data.feature_cache.dir is not None and trained:
        yield Conflict(
            (("data", "feature_cache", "dir"), ("adapter", "targets")),
            f"needs a frozen vision encoder and connector, and adapter.targets names "
            f"{' and '.join(trained)}: features would change with every step; "
            "leave feature_cache out (frame_cache is possible) or train language alone",
        )


def _pairs_can_be_trained(recipe: Recipe) -> Iterator[Conflict]:
    """What has no meaning, or is not there yet, for pairs of answers."""
    if recipe.preference is None:
        return
    adapter, data, trainer = recipe.adapter, recipe.data, recipe.trainer
    faults: tuple[tuple[bool, KeyPath, str], ...] = (
        (
            adapter.dropout > 0,
            ("adapter", "dropout"),
            f"must be 0 with preference, not {adapter.dropout:g}: the reference answers without "
            "dropout, and the model must start equal to it",
        ),
        (
            adapter.method == "pissa",
            ("adapter", "method"),
            "pissa cannot be continued by preference; its run holds plain LoRA of twice the rank "
            "and alpha, so write that",
        ),
        (data.packing, ("data", "packing"), "cannot be had with preference; leave it out"),
        (
            recipe.loss.weighting != "flat",
            ("loss", "weighting"),
            "has no effect with preference, where a pair counts as one; leave it out",
        ),
        (
            trainer.devices != 1 or trainer.strategy == "fsdp",
            ("trainer", "devices"),
            "must be 1 with preference, and trainer.strategy not fsdp: one process makes the pairs",
        ),
    )
    for is_so, key, reason in faults:
        others: tuple[KeyPath, ...] = (("preference", "from_run"),)  # stands for the section
        if key == ("trainer", "devices"):
            others = (*others, ("trainer", "strategy"))
        if is_so:
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
