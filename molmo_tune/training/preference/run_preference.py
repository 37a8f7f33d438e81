"""The composition root of preference training: the phases of `run`, with pairs made in between.

The model is loaded with the adapter of an earlier run, answers the training questions, and is then
trained on pairs of its own answers.
"""

from __future__ import annotations

from rich.console import Console

from molmo_tune.model.loading import load_processor
from molmo_tune.preference.pair_set import PairSet, collate_pairs
from molmo_tune.preference.pairs_file import write_pairs
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.batches.data_module import (
    MolmoDataModule,
    build_data_module,
    dataset_options,
)
from molmo_tune.training.fit import fit
from molmo_tune.training.open_run import open_run
from molmo_tune.training.optimizers import optim_settings
from molmo_tune.training.preference.pairing import (
    Pairing,
    make_pairs,
    preference_section,
    require_earlier_run,
    stored_pairs,
)
from molmo_tune.training.preference.preference_module import METRICS, PreferenceModule
from molmo_tune.training.preference.reference_log_probs import with_reference
from molmo_tune.training.prepare_model import PreparedModel, load_prepared
from molmo_tune.training.processes import is_first_process
from molmo_tune.training.read_data import TrainingData, read_data, with_unreadable
from molmo_tune.training.run_report import TrainingResult, report_run
from molmo_tune.training.run_start import RunStart, start_run
from molmo_tune.training.setup_lines import print_parameters


def train_on_pairs(recipe: Recipe, console: Console, *, resume: bool) -> TrainingResult:
    """Train on pairs of an earlier run's own answers."""
    start = start_run(recipe, console, resume=resume)
    processor = load_processor(recipe.model.name)
    require_earlier_run(recipe, processor)
    data = read_data(start, processor)
    prepared = load_prepared(recipe, processor)
    module = preference_module(recipe, prepared)
    print_parameters(console, module, recipe)
    pairing = prepare_pairs(start, data, prepared, module)
    data = with_unreadable(start, data, pairing.unreadable)
    open_run(start, prepared.model, processor)
    if is_first_process():
        write_pairs(start.run.pairs, pairing.mined, data.train)
    batches = pair_batches(recipe, data, prepared, pairing)
    fitted = fit(start, data, module, batches, metrics=METRICS)
    return report_run(start, data, fitted, pairing.figures())


def preference_module(recipe: Recipe, prepared: PreparedModel) -> PreferenceModule:
    """Return the model with the loss over pairs and the recipe's optimizer."""
    section = preference_section(recipe)
    return PreferenceModule(
        prepared.model,
        optim_settings(recipe),
        beta=section.beta,
        supervised_weight=section.supervised_weight,
        offload_activations=recipe.trainer.offload_activations,
        feature_cache=prepared.feature_cache,
    )


def prepare_pairs(
    start: RunStart, data: TrainingData, prepared: PreparedModel, module: PreferenceModule
) -> Pairing:
    """Return the pairs to train on: new ones, or those a resumed run started with."""
    if start.checkpoint is not None:
        pairing = stored_pairs(start.recipe, start.run, data.processor, data.train)
    else:
        pairing = make_pairs(start, data, prepared.model)
        pairing = with_reference(pairing, start.recipe, module, data, prepared.features)
    start.console.print(f"preference: {pairing.mined.summary()}", highlight=False)
    return pairing


def pair_batches(
    recipe: Recipe, data: TrainingData, prepared: PreparedModel, pairing: Pairing
) -> MolmoDataModule:
    """Return the batches of the pairs, and those of the validation items."""
    options = dataset_options(recipe, data.processor, prepared.features)
    pairs = PairSet(pairing.sequences(), references=pairing.references(), **options)
    return build_data_module(recipe, pairs, data.val, options, collate_train=collate_pairs)
