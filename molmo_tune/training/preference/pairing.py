"""From training items to pairs of answers: made by the model, or read back by a resumed run.

The model, which still equals the earlier run, answers the training questions (`preference.mining`),
and its answers become sequences of pairs. How likely it finds them is computed next
(`reference_log_probs`). A resumed run reads both from its folder and generates nothing.

Limitations: a single process, because each would generate its own answers; the recipe refuses more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from molmo_tune.encoding.items import Item, Refused
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import limits_of
from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import num_questions
from molmo_tune.model.adapters import bare_model
from molmo_tune.model.fingerprint import processor_identity, require_same_base
from molmo_tune.model.molmo import Molmo
from molmo_tune.preference.mining import MiningSettings, mine
from molmo_tune.preference.pair_trees import PairTree, pair_trees
from molmo_tune.preference.pairs import Mined
from molmo_tune.preference.pairs_file import read_pairs
from molmo_tune.recipe.sections import PreferenceSection, Recipe
from molmo_tune.run_folder import RunFolder, read_json
from molmo_tune.training.callbacks.progress import progress_columns
from molmo_tune.training.read_data import TrainingData
from molmo_tune.training.run_start import RunStart


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of a run, the sequences that contain them, and media found to be unreadable."""

    mined: Mined
    trees: tuple[PairTree, ...]
    unreadable: tuple[Refused, ...] = ()

    def sequences(self) -> list[Item]:
        """Return the items to train on, in order."""
        return [tree.item for tree in self.trees]

    def references(self) -> list[NDArray[np.float32]]:
        """Return the reference's log-probabilities ``(Q, 2)`` for each sequence."""
        return [tree.reference() for tree in self.trees]

    def figures(self) -> dict[str, object]:
        """Return the figures for the report."""
        return {
            "answer_pairs": self.mined.num_answer_pairs,
            "pairs": len(self.mined.pairs),
            "sequences": len(self.trees),
            "unused": dict(self.mined.unused),
            "drawn_f1": self.mined.drawn_f1,
        }


def preference_section(recipe: Recipe) -> PreferenceSection:
    """Return the section, for code that runs only if there is one.

    Raises:
        ValueError: there is none.
    """
    if recipe.preference is None:
        raise ValueError("the recipe has no preference section")
    return recipe.preference


def require_earlier_run(recipe: Recipe, processor: Processor) -> None:
    """Check the run to start from, before labels are read or a model is loaded.

    Raises:
        UserError: there is none, or it was trained with another tokenizer or chat template.
    """
    earlier = RunFolder(preference_section(recipe).from_run)
    earlier.require_trained()
    require_same_base(read_json(earlier.base), processor_identity(processor), earlier.base)


def make_pairs(start: RunStart, data: TrainingData, model: torch.nn.Module) -> Pairing:
    """Sample answers to all training questions and pair the better ones with the worse.

    Raises:
        UserError: no two answers make a pair.
    """
    recipe = start.recipe
    settings = _mining_settings(recipe)
    with progress_columns(start.console) as progress:
        total = num_questions(data.train, settings.max_questions)
        task = progress.add_task("answering", total=total, note="")
        mined, unreadable = mine(
            _on_device(model, recipe),
            data.processor,
            data.train,
            limits_of(recipe),
            settings,
            lambda done: progress.advance(task, done),
        )
    _require_pairs(mined)
    return pairing_of(recipe, data.processor, data.train, mined, unreadable)


def stored_pairs(
    recipe: Recipe, run: RunFolder, processor: Processor, items: Sequence[Item]
) -> Pairing:
    """Read the pairs that an interrupted run started with.

    Raises:
        UserError: they are missing, or the questions have changed.
    """
    return pairing_of(recipe, processor, items, read_pairs(run.pairs, items))


def pairing_of(
    recipe: Recipe,
    processor: Processor,
    items: Sequence[Item],
    mined: Mined,
    unreadable: Sequence[Refused] = (),
) -> Pairing:
    """Arrange pairs in sequences of at most `data.max_tokens`."""
    trees = pair_trees(
        items, mined.pairs, processor, limits_of(recipe), max_tokens=recipe.data.max_tokens
    )
    return Pairing(mined, tuple(trees), tuple(unreadable))


def _require_pairs(mined: Mined) -> None:
    if not mined.pairs:
        raise UserError(
            "preference",
            f"no pair to train on ({mined.summary()})",
            "questions whose sampled answers differ in F1",
            "add other questions or sample more answers (preference.pairs_per_question); with a "
            "mean F1 near 1 the run cannot improve, near 0 it needs more supervised training",
        )


def _mining_settings(recipe: Recipe) -> MiningSettings:
    section = preference_section(recipe)
    return MiningSettings(
        min_f1_gap=section.min_f1_gap,
        pairs_per_question=section.pairs_per_question,
        max_tokens=recipe.data.max_tokens,
        max_new_tokens=recipe.eval.max_new_tokens,
        batch_size=recipe.eval.batch_size,
        seed=recipe.seed,
        max_questions=section.max_questions,
    )


def _on_device(model: torch.nn.Module, recipe: Recipe) -> Molmo:
    """Return the bare model on the device that generates; Lightning moves it again by itself."""
    on_gpu = recipe.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return bare_model(model).to("cuda" if on_gpu else "cpu")
