"""The model a run trains: the recipe's base with its attention backend, adapters and checkpointing.

With a `preference` section the adapters come from the earlier run, otherwise they are new. Vision
features can come from a cache, which knows the model by its fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch

from molmo_tune.encoding.media_inputs import FeatureNames
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import cache_place
from molmo_tune.media.array_cache import ArrayCache, cache_at
from molmo_tune.model.adapters import Method, Part, add_adapter, bare_model
from molmo_tune.model.attention_backends import use_backend
from molmo_tune.model.feature_cache import fingerprint
from molmo_tune.model.fingerprint import decoder_identity, require_same_base
from molmo_tune.model.gradient_checkpointing import checkpoint_layers
from molmo_tune.model.loading import load_model, resolve_dtype
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.resume_adapter import continue_adapter
from molmo_tune.recipe.sections import AdapterSection, PreferenceSection, Recipe
from molmo_tune.run_folder import RunFolder, read_json
from molmo_tune.training.precision import attention_of, precision_of


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model ready for training, and the cache of its vision features, if the recipe has one."""

    model: torch.nn.Module
    features: FeatureNames | None

    @property
    def feature_cache(self) -> ArrayCache | None:
        """The opened cache."""
        return cache_at(self.features.place) if self.features is not None else None


class _AdapterOptions(TypedDict):
    method: Method
    rank: int
    alpha: float
    targets: tuple[Part, ...]
    rslora: bool


def load_prepared(recipe: Recipe, processor: Processor) -> PreparedModel:
    """Load and prepare the model, and find its feature cache.

    Raises:
        UserError: the base does not load, or does not fit the run it continues.
    """
    model = build_model(recipe)
    return PreparedModel(model, feature_names(recipe, model, processor))


def build_model(recipe: Recipe) -> torch.nn.Module:
    """Load the recipe's base and prepare it for training."""
    dtype = resolve_dtype(recipe.model.dtype)
    base = load_model(recipe.model.name, dtype=dtype, quantize=recipe.model.quantize)
    return prepare_model(base, recipe)


def prepare_model(base: Molmo, recipe: Recipe) -> torch.nn.Module:
    """Give a frozen base the recipe's attention, adapters and gradient checkpointing.

    Returns:
        A `PeftModel`, or with `adapter.method: full` the base itself; in training mode.
    """
    use_backend(base, attention_of(recipe))
    if recipe.preference is not None:
        model = _with_adapter_of_run(base, recipe.adapter, recipe.preference)
    else:
        options = _adapter_options(recipe.adapter)
        model = add_adapter(base, dropout=recipe.adapter.dropout, **options)
    if recipe.trainer.gradient_checkpointing:
        checkpoint_layers(base, recipe.trainer.checkpointed_parts)
    return model.train()


def feature_names(
    recipe: Recipe, model: torch.nn.Module, processor: Processor
) -> FeatureNames | None:
    """Return the place of the recipe's feature cache and the model's fingerprint in it."""
    place = cache_place(recipe.data.feature_cache)
    if place is None:
        return None
    body = bare_model(model).model
    return FeatureNames(place, fingerprint(body, processor, precision_of(recipe)))


def _with_adapter_of_run(
    base: Molmo, adapter: AdapterSection, preference: PreferenceSection
) -> torch.nn.Module:
    earlier = RunFolder(preference.from_run)
    require_same_base(read_json(earlier.base), decoder_identity(base), earlier.base)
    return continue_adapter(base, earlier.adapter, **_adapter_options(adapter))


def _adapter_options(adapter: AdapterSection) -> _AdapterOptions:
    return {
        "method": adapter.method,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": adapter.targets,
        "rslora": adapter.rslora,
    }
