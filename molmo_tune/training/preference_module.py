"""The `LightningModule` of preference training: the supervised one with the loss of pairs.

**What of TRL is used, and why not more.** The loss is TRL's ``sigmoid`` (and ``sft``), written out
in `molmo_tune.model.preference_loss` and compared with TRL's own in the tests. Its `DPOTrainer`
cannot be used. Its collator for pictures (release 1.16) has the processor tokenize prompt and
answer apart: that puts a begin token between the two and trains it, leaves the end token out, and
encodes every picture twice; videos it does not know. A collator of ours would not help, because the
trainer takes its losses from the model's stock forward, which refuses images and videos together
and has no message trees.

So everything but the loss is that of supervised training, from the token ids to the division by the
weight of a whole optimizer step (`MolmoModule`), the checkpoints and the bit-equal resumption. A
pair counts with the weight of its data source. Validation is supervised, too: `val/loss` says what
becomes of the labels' answers.

Logged per optimizer step, as weighted means over its pairs:

    train/preference_loss   the term of the differences, ln 2 at the start
    train/accuracy          share of pairs whose better answer has the higher reward
    train/margin            reward of the better answer less that of the worse
    train/chosen_reward     beta times how much likelier (in nats) the answer is than by the
    train/rejected_reward   reference, better and worse
    train/drift             how many nats an answer has moved, either way; no KL divergence, because
                            the answers are not drawn from the model
"""

from __future__ import annotations

from typing import Any

import torch

from molmo_tune.encoding.encoded import Batch
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.log_probs import AnswerLogProbs, answer_log_probs
from molmo_tune.model.loss import LossSums
from molmo_tune.model.preference_loss import PairLosses, pair_losses
from molmo_tune.preference.pair_set import PairBatch
from molmo_tune.training.module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings

FIGURES = (
    "preference_loss",
    "accuracy",
    "margin",
    "chosen_reward",
    "rejected_reward",
    "drift",
)


class PreferenceModule(MolmoModule):
    """Trains a model on pairs of answers.

    Args:
        model: as for `MolmoModule`; it starts as the reference.
        optim: optimizer settings.
        beta: see `molmo_tune.model.preference_loss`.
        supervised_weight: see there.
        options: `offload_activations` and `known_features` of `MolmoModule`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimSettings,
        *,
        beta: float,
        supervised_weight: float,
        **options: Any,
    ) -> None:
        super().__init__(model, optim, z_loss=0.0, **options)
        self.beta, self.supervised_weight = beta, supervised_weight
        self._step_figures: dict[str, float] = dict.fromkeys(FIGURES, 0.0)

    def log_probs(self, batch: Batch) -> AnswerLogProbs:
        """Log-probabilities of all answers of a batch of trees."""
        model = self.bare_model
        hidden = hidden_states(model, batch, self.known_features)
        return answer_log_probs(hidden, model.lm_head.weight, batch)

    def sums(self, batch: Batch) -> LossSums:
        """Sums over the pairs of a batch; of a batch without pairs the supervised ones."""
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
        self._count(losses, weights)
        return LossSums(total, total.detach(), weights.sum(), 2 * len(weights))

    def predict_step(self, batch: Batch, _batch_index: int = 0) -> torch.Tensor:
        """Log-probabilities ``(ΣQ, 2)`` of better and worse answers: what a reference is asked."""
        return self.log_probs(batch).sums.view(-1, 2).cpu()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log what the step's pairs look like, besides the loss."""
        weight = max(self._step_weight, 1e-12)
        super().on_before_optimizer_step(optimizer)
        for name in FIGURES:
            self.log(f"train/{name}", self._step_figures[name] / weight)
        self._step_figures = dict.fromkeys(FIGURES, 0.0)

    def _count(self, losses: PairLosses, weights: torch.Tensor) -> None:
        moved = (losses.chosen_reward.abs() + losses.rejected_reward.abs()) / (2 * self.beta)
        margin = losses.chosen_reward - losses.rejected_reward
        found = {
            "preference_loss": losses.preference,
            "accuracy": (margin > 0).float(),
            "margin": margin,
            "chosen_reward": losses.chosen_reward,
            "rejected_reward": losses.rejected_reward,
            "drift": moved,
        }
        sums = (torch.stack([found[name] for name in FIGURES]) @ weights).tolist()
        for name, value in zip(FIGURES, sums, strict=True):
            self._step_figures[name] += value
