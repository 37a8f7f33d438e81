"""The `LightningModule` of preference training: the supervised one with a loss over pairs.

**Which parts of TRL are used, and why no more.** The loss is TRL's ``sigmoid`` (and ``sft``),
written out in `molmo_tune.model.preference_loss` and compared with TRL's own in the tests. Its
`DPOTrainer` does not work here. Its collator for images (release 1.16) tokenizes prompt and answer
separately, which puts a begin token between the two and trains it, omits the end token, and encodes
every image twice; it does not support videos. A custom collator would not help, because the trainer
computes its losses from the model's stock forward, which refuses images and videos together and has
no message trees.

So everything else is supervised training, from the token ids to the division by the weight of a
whole optimizer step (`MolmoModule`), checkpoints and the bit-identical resume. A pair counts with
the weight of its data source. Validation is supervised, too: `val/loss` shows what happens to the
labels' answers.

Logged per optimizer step, as weighted means over its pairs:

    train/preference_loss   the preference term, ln 2 at the start
    train/accuracy          fraction of pairs whose chosen answer has the higher reward
    train/margin            reward of the chosen answer minus that of the rejected one
    train/chosen_reward     beta times the change in log-probability (in nats) since the reference,
    train/rejected_reward   for chosen and rejected answers
    train/drift             absolute change in log-probability per answer, in nats; not a KL
                            divergence, because the answers are not sampled from the current model
"""

from __future__ import annotations

from typing import TypedDict, Unpack

import torch

from molmo_tune.encoding.encoded import Batch
from molmo_tune.media.array_cache import ArrayCache
from molmo_tune.model.answer_log_probs import AnswerLogProbs, answer_log_probs
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loss import LossSums
from molmo_tune.model.preference_loss import PairLosses, pair_losses
from molmo_tune.preference.pair_set import PairBatch
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings

METRICS = (
    "preference_loss",
    "accuracy",
    "margin",
    "chosen_reward",
    "rejected_reward",
    "drift",
)


class ModuleOptions(TypedDict, total=False):
    """Options that `PreferenceModule` shares with `MolmoModule`."""

    offload_activations: bool
    feature_cache: ArrayCache | None


class PreferenceModule(MolmoModule):
    """Trains a model on pairs of answers.

    Args:
        model: as for `MolmoModule`; it starts as the reference.
        optim: optimizer settings.
        beta: see `molmo_tune.model.preference_loss`.
        supervised_weight: see there.
        options: of `MolmoModule`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimSettings,
        *,
        beta: float,
        supervised_weight: float,
        **options: Unpack[ModuleOptions],
    ) -> None:
        super().__init__(model, optim, z_loss=0.0, **options)
        self.beta, self.supervised_weight = beta, supervised_weight
        self._step_metrics: dict[str, float] = dict.fromkeys(METRICS, 0.0)

    def log_probs(self, batch: Batch) -> AnswerLogProbs:
        """Return the log-probabilities of all answers of a batch of trees."""
        model = self.bare_model
        hidden = hidden_states(model, batch, self.feature_cache)
        return answer_log_probs(hidden, model.lm_head.weight, batch)

    def sums(self, batch: Batch) -> LossSums:
        """Return sums over the pairs of a batch, or the supervised sums of a batch without."""
        if not isinstance(batch, PairBatch):
            return super().sums(batch)
        answers = self.log_probs(batch)
        losses = pair_losses(
            answers.sums.view(-1, 2),
            batch.reference,
            answers.num_tokens[::2],
            beta=self.beta,
            supervised_weight=self.supervised_weight,
        )
        weights = answers.weights[::2]
        total = (weights * losses.total).sum()
        self._add_metrics(losses, weights)
        return LossSums(total, total.detach(), weights.sum(), 2 * len(weights))

    def predict_step(self, batch: Batch, _batch_index: int = 0) -> torch.Tensor:
        """Return log-probabilities ``(ΣQ, 2)`` of chosen and rejected answers, for a reference."""
        return self.log_probs(batch).sums.view(-1, 2).cpu()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Also log the metrics of the step's pairs."""
        weight = max(self._step_weight, 1e-12)
        super().on_before_optimizer_step(optimizer)
        for name in METRICS:
            self.log(f"train/{name}", self._step_metrics[name] / weight)
        self._step_metrics = dict.fromkeys(METRICS, 0.0)

    def _add_metrics(self, losses: PairLosses, weights: torch.Tensor) -> None:
        drift = (losses.chosen_reward.abs() + losses.rejected_reward.abs()) / (2 * self.beta)
        margin = losses.chosen_reward - losses.rejected_reward
        values = {
            "preference_loss": losses.preference,
            "accuracy": (margin > 0).float(),
            "margin": margin,
            "chosen_reward": losses.chosen_reward,
            "rejected_reward": losses.rejected_reward,
            "drift": drift,
        }
        sums = (torch.stack([values[name] for name in METRICS]) @ weights).tolist()
        for name, value in zip(METRICS, sums, strict=True):
            self._step_metrics[name] += value
