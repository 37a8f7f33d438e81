"""The reference's log-probabilities of both answers of every pair, computed once before training.

Lightning computes them under the precision that training uses, so that the first preference loss is
ln 2. The reference is the model before its first step; it needs no second copy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import cast

import lightning as L
import torch
from torch.utils.data import DataLoader

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.media_inputs import FeatureNames
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import limits_of
from molmo_tune.preference.pairs import Mined
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.precision import precision_of
from molmo_tune.training.preference.pairing import Pairing, pairing_of
from molmo_tune.training.preference.preference_module import PreferenceModule
from molmo_tune.training.read_data import TrainingData


def with_reference(
    pairing: Pairing,
    recipe: Recipe,
    module: PreferenceModule,
    data: TrainingData,
    features: FeatureNames | None,
) -> Pairing:
    """Return the pairing with log-probabilities by the module, which is left in training mode."""
    found = _log_probs(pairing, recipe, module, data.processor, features).tolist()
    pairs = (pair for tree in pairing.trees for pair in tree.pairs)
    known = (
        replace(pair, reference=(chosen, rejected))
        for pair, (chosen, rejected) in zip(pairs, found, strict=True)
    )
    mined = Mined.of(known, Counter(pairing.mined.unused), pairing.mined.drawn_f1)
    return pairing_of(recipe, data.processor, data.train, mined, pairing.unreadable)


def _log_probs(
    pairing: Pairing,
    recipe: Recipe,
    module: PreferenceModule,
    processor: Processor,
    features: FeatureNames | None,
) -> torch.Tensor:
    """Return the log-probabilities ``(ΣQ, 2)`` in the order of the sequences."""
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
        inference_mode=False,  # tensors it leaves in buffers could not be trained with
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    predicted = cast(list[torch.Tensor], trainer.predict(module, loader))
    module.train()
    return torch.cat(predicted)
