"""The phase that opens the run folder, and what it writes there before training."""

from __future__ import annotations

import torch

from molmo_tune.atomic_files import write_json, write_text
from molmo_tune.encoding.processor import Processor
from molmo_tune.model.adapters import keep_start
from molmo_tune.model.fingerprint import base_identity
from molmo_tune.recipe.saving import dump_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder, read_json
from molmo_tune.training.processes import is_first_process
from molmo_tune.training.run_start import RunStart


def open_run(start: RunStart, model: torch.nn.Module, processor: Processor) -> None:
    """Create the folder with the resolved recipe, the base's digests and what PiSSA starts from.

    Only the first process does so, and only after the model is loaded: a run that fails earlier
    leaves no folder.

    Raises:
        UserError: the folder cannot be written to.
    """
    if not is_first_process():
        return
    start.run.create()
    write_text(start.run.recipe, dump_recipe(start.recipe))
    keep_start(model, start.run.adapter)
    write_json(start.run.base, base_digests(start.recipe, model, processor))


def base_digests(recipe: Recipe, model: torch.nn.Module, processor: Processor) -> dict[str, str]:
    """Return digests of the base of a model that is not trained yet (`model.fingerprint`).

    Preference training copies them from the earlier run, because with ``full`` that run has changed
    the weights themselves.
    """
    if recipe.preference is None:
        return base_identity(model, processor)
    recorded: dict[str, str] = read_json(RunFolder(recipe.preference.from_run).base)
    return recorded
