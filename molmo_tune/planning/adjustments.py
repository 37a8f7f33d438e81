"""Settings that make a run fit a GPU, tried in the order of their cost in quality.

Each is tried on top of those that helped before, with a forecast of its own, until the run fits.

    same result       checkpointing, fewer rows at once, automatic attention, offloading
    nearly the same   8-bit optimizer states, 4-bit frozen decoder
    less is learned   lower rank, an adapter instead of all weights
    less is seen      fewer frames or crops, shorter sequences

Limitations: the quality that a setting costs depends on the data and is not estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from molmo_tune.errors import UserError
from molmo_tune.planning.gpus import fits
from molmo_tune.recipe.sections import Recipe

MIN_GAIN = 0.005
"""Fraction of the peak that a setting must save to be kept."""
_LOWEST_RANK, _FEWEST_FRAMES, _FEWEST_CROPS, _FEWEST_TOKENS = 8, 8, 2, 2048


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Settings to add to the earlier ones, in the form of ``--set``, and the peak with all."""

    settings: tuple[str, ...]
    peak_bytes: int


def adjustments(
    recipe: Recipe,
    peak_bytes: int,
    memory_gb: float,
    *,
    change: Callable[[tuple[str, ...]], Recipe],
    peak_of: Callable[[Recipe], int],
) -> Iterator[Adjustment]:
    """Yield what helps, in order, until the run fits or nothing is left to try.

    Args:
        recipe: that does not fit.
        peak_bytes: its peak.
        memory_gb: of the GPU.
        change: returns the recipe with settings, or raises `UserError` if they conflict with it.
        peak_of: returns the forecast peak of a recipe.
    """
    kept: tuple[str, ...] = ()
    for candidate in _CANDIDATES:
        while (settings := candidate(recipe)) and not fits(peak_bytes, memory_gb):
            try:
                changed = change((*kept, *settings))
                found = peak_of(changed)
            except UserError:
                break
            if found > peak_bytes * (1 - MIN_GAIN):
                break
            kept, recipe, peak_bytes = (*kept, *settings), changed, found
            yield Adjustment(settings, found)


Settings = tuple[str, ...]


def _checkpointing(recipe: Recipe) -> Settings:
    trainer = recipe.trainer
    if trainer.gradient_checkpointing:
        return ()
    return ("trainer.gradient_checkpointing=true",)


def _one_row_at_once(recipe: Recipe) -> Settings:
    trainer = recipe.trainer
    if trainer.batch_size == 1:
        return ()
    batches = trainer.batch_size * trainer.accumulate_grad_batches
    return ("trainer.batch_size=1", f"trainer.accumulate_grad_batches={batches}")


def _fast_attention(recipe: Recipe) -> Settings:
    return ("model.attention=auto",) if recipe.model.attention == "sdpa" else ()


def _small_states(recipe: Recipe) -> Settings:
    return ("optim.name=adamw_8bit",) if recipe.optim.name == "adamw" else ()


def _offloading(recipe: Recipe) -> Settings:
    return () if recipe.trainer.offload_activations else ("trainer.offload_activations=true",)


def _adapter(recipe: Recipe) -> Settings:
    return ("adapter.method=lora",) if recipe.adapter.method == "full" else ()


def _four_bits(recipe: Recipe) -> Settings:
    return ("model.quantize=nf4",) if recipe.model.quantize is None else ()


def _lower_rank(recipe: Recipe) -> Settings:
    rank = recipe.adapter.rank // 2
    if recipe.adapter.method == "full" or rank < _LOWEST_RANK:
        return ()
    return (f"adapter.rank={rank}", f"adapter.alpha={recipe.adapter.alpha / 2:g}")


def _fewer_frames(recipe: Recipe) -> Settings:
    frames = recipe.video.max_frames // 2
    return (f"video.max_frames={frames}",) if frames >= _FEWEST_FRAMES else ()


def _fewer_crops(recipe: Recipe) -> Settings:
    crops = recipe.image.max_crops // 2
    return (f"image.max_crops={crops}",) if crops >= _FEWEST_CROPS else ()


def _shorter_rows(recipe: Recipe) -> Settings:
    tokens = recipe.data.max_tokens // 2
    return (f"data.max_tokens={tokens}",) if tokens >= _FEWEST_TOKENS else ()


_CANDIDATES: tuple[Callable[[Recipe], Settings], ...] = (
    _checkpointing,
    _one_row_at_once,
    _fast_attention,
    _small_states,
    _four_bits,
    _adapter,
    _four_bits,
    _offloading,
    _lower_rank,
    _fewer_frames,
    _fewer_crops,
    _shorter_rows,
)
