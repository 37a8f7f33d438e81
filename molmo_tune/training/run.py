"""The composition root of training: a recipe in, a trained run folder out.

`train` reads as the phases of a supervised run; `run_preference` has those of a run on pairs. Data
and settings fail before the model is loaded, and the run folder is not touched until it is.
"""

from __future__ import annotations

from rich.console import Console

from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.batches.data_module import (
    MolmoDataModule,
    build_data_module,
    dataset_options,
)
from molmo_tune.training.fit import fit
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.open_run import open_run
from molmo_tune.training.optimizers import optim_settings
from molmo_tune.training.preference.run_preference import train_on_pairs
from molmo_tune.training.prepare_model import PreparedModel, load_prepared
from molmo_tune.training.quiet_libraries import quiet_libraries
from molmo_tune.training.read_data import TrainingData, read_data
from molmo_tune.training.run_report import TrainingResult, report_run
from molmo_tune.training.run_start import start_run
from molmo_tune.training.setup_lines import print_parameters


def train(recipe: Recipe, console: Console, *, resume: bool = False) -> TrainingResult:
    """Fine-tune from a recipe: on the labels' answers, or on pairs if it has `preference`.

    Args:
        recipe: resolved.
        console: for tables and progress.
        resume: continue from the run folder's last checkpoint; bit-identical to not having stopped.

    Raises:
        UserError: labels, media, base or folder cannot be used; or there is nothing to resume.
    """
    with quiet_libraries():
        if recipe.preference is not None:
            return train_on_pairs(recipe, console, resume=resume)
        return train_on_labels(recipe, console, resume=resume)


def train_on_labels(recipe: Recipe, console: Console, *, resume: bool) -> TrainingResult:
    """Train on the answers that the labels give."""
    start = start_run(recipe, console, resume=resume)
    data = read_data(start, load_processor(recipe.model.name))
    prepared = load_prepared(recipe, data.processor)
    module = supervised_module(recipe, prepared)
    print_parameters(console, module, recipe)
    open_run(start, prepared.model, data.processor)
    fitted = fit(start, data, module, supervised_batches(recipe, data, prepared))
    return report_run(start, data, fitted)


def supervised_module(recipe: Recipe, prepared: PreparedModel) -> MolmoModule:
    """Return the model with the supervised loss and the recipe's optimizer."""
    return MolmoModule(
        prepared.model,
        optim_settings(recipe),
        z_loss=recipe.loss.z_loss,
        offload_activations=recipe.trainer.offload_activations,
        feature_cache=prepared.feature_cache,
    )


def supervised_batches(
    recipe: Recipe, data: TrainingData, prepared: PreparedModel
) -> MolmoDataModule:
    """Return the batches of the training items, and those of the validation items."""
    options = dataset_options(recipe, data.processor, prepared.features)
    return build_data_module(recipe, TrainingSet(data.train, **options), data.val, options)
