"""From the items of a recipe to pairs whose reference is known: what precedes preference training.

The model, which still is the run it starts from, is asked twice: for answers (`mining`), and how
likely it finds both answers of every pair. The second is done by Lightning, under the precision
that training computes in, so that the first loss is ln 2. A resumed run reads both from its folder
(`pairs_file`) and asks nobody.

What it does not do: several processes, of which each would answer for itself; the recipe refuses
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch.utils.data import DataLoader

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.items import Item, Refused
from molmo_tune.encoding.media_inputs import FeatureNames
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
from molmo_tune.training.builders import precision_of
from molmo_tune.training.preference_module import PreferenceModule
from molmo_tune.training.progress import progress_columns


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of a run and the sequences they are trained in; ``bad``: media that do not open."""

    mined: Mined
    trees: tuple[PairTree, ...]
    bad: tuple[Refused, ...] = ()

    def sequences(self) -> list[Item]:
        """What is trained on, in order."""
        return [tree.item for tree in self.trees]

    def references(self) -> list[NDArray[np.float32]]:
        """Of each sequence, the log-probabilities ``(Q, 2)`` by the reference."""
        return [tree.reference() for tree in self.trees]

    def figures(self) -> dict[str, Any]:
        """For the report."""
        return {
            "answer_pairs": self.mined.num_answer_pairs,
            "pairs": len(self.mined.pairs),
            "sequences": len(self.trees),
            "unused": dict(self.mined.unused),
            "drawn_f1": self.mined.drawn_f1,
        }


def require_begun(recipe: Recipe, processor: Processor) -> None:
    """Check that there is a run to go on from, before labels are read or a model is loaded.

    Raises:
        UserError: there is none, or it was trained with another tokenizer or chat template.
    """
    if recipe.preference is None:
        return
    begun = RunFolder(recipe.preference.from_run)
    begun.require_trained()
    require_same_base(read_json(begun.base), processor_identity(processor), begun.base)


def make_pairs(
    recipe: Recipe,
    model: torch.nn.Module,
    processor: Processor,
    items: Sequence[Item],
    console: Console,
) -> Pairing:
    """Draw answers to all training questions and pair the better with the worse.

    Raises:
        UserError: there is no pair.
    """
    section = _section(recipe)
    settings = MiningSettings(
        min_f1_gap=section.min_f1_gap,
        pairs_per_question=section.pairs_per_question,
        max_tokens=recipe.data.max_tokens,
        max_new_tokens=recipe.eval.max_new_tokens,
        batch_size=recipe.eval.batch_size,
        seed=recipe.seed,
        max_questions=section.max_questions,
    )
    with progress_columns(console) as progress:
        total = num_questions(items, section.max_questions)
        task = progress.add_task("asking", total=total, note="")
        mined, bad = mine(
            _placed(model, recipe),
            processor,
            items,
            limits_of(recipe),
            settings,
            lambda done: progress.advance(task, done),
        )
    if not mined.pairs:
        raise UserError(
            "preference",
            f"no pair to train on ({mined.explained()})",
            "questions that are sometimes answered better than at other times",
            "bring other questions or draw more (preference.pairs_per_question); with a mean F1 "
            "near 1 the run cannot become better, near 0 it needs more supervised training",
        )
    return _pairing(recipe, processor, items, mined, bad)


def stored_pairs(
    recipe: Recipe, run: RunFolder, processor: Processor, items: Sequence[Item]
) -> Pairing:
    """The pairs that an interrupted run began with.

    Raises:
        UserError: they are missing, or the questions have changed.
    """
    return _pairing(recipe, processor, items, read_pairs(run.pairs, items), ())


def with_reference(
    pairing: Pairing,
    recipe: Recipe,
    module: PreferenceModule,
    processor: Processor,
    items: Sequence[Item],
    features: FeatureNames | None,
) -> Pairing:
    """The same pairs with the log-probabilities of both answers by the module as it is now."""
    samples = TrainingSet(pairing.sequences(), processor, limits_of(recipe), features=features)
    loader = DataLoader(
        samples,
        batch_size=recipe.trainer.batch_size,
        collate_fn=partial(collate, pad_id=int(processor.tokenizer.pad_token_id)),
    )
    trainer = L.Trainer(
        accelerator=recipe.trainer.accelerator,
        devices=1,
        precision=precision_of(recipe),
        inference_mode=False,  # what it leaves in buffers could not be trained with
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    predicted: Any = trainer.predict(module, loader)
    found = torch.cat(predicted).tolist()
    module.train()
    asked = (pair for tree in pairing.trees for pair in tree.pairs)
    known = (
        replace(pair, reference=(chosen, rejected))
        for pair, (chosen, rejected) in zip(asked, found, strict=True)
    )
    mined = Mined.of(known, Counter(pairing.mined.unused), pairing.mined.drawn_f1)
    return _pairing(recipe, processor, items, mined, pairing.bad)


def _pairing(
    recipe: Recipe,
    processor: Processor,
    items: Sequence[Item],
    mined: Mined,
    bad: Sequence[Refused],
) -> Pairing:
    trees = pair_trees(
        items, mined.pairs, processor, limits_of(recipe), max_tokens=recipe.data.max_tokens
    )
    return Pairing(mined, tuple(trees), tuple(bad))


def _section(recipe: Recipe) -> PreferenceSection:
    if recipe.preference is None:
        raise ValueError("the recipe has no preference section")
    return recipe.preference


def _placed(model: torch.nn.Module, recipe: Recipe) -> Molmo:
    """The bare model where answers are to be generated; Lightning moves it again by itself."""
    on_gpu = recipe.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return bare_model(model).to("cuda" if on_gpu else "cpu")
