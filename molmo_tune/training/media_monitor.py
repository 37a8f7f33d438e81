"""Media that do not open, and where those that do come from: counted over what was trained on.

A sample whose medium does not open was replaced in the loader (`encoding.datasets`); its batch says
so, and here it is set apart with the reason. The decision hangs on the file alone, so all passes, a
resumed run and any number of processes agree on it. (A time-out hangs on the machine, too.)
Training goes on until more than the agreed share of the training media is bad: then something is
wrong that the user should know of, a folder that is not mounted for example.

All processes know of all bad media; what is counted else is summed over them at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from molmo_tune.encoding.encoded import Batch, Opening
from molmo_tune.errors import UserError

LISTED = 20  # bad media on the screen; the report has them all
CACHES = ("frame_cache", "feature_cache", "memory")


class MediaMonitor(Callback):
    """Count openings, set bad media apart, and refuse too many.

    Args:
        console: told once when a cache cannot keep something, and of bad media at the end.
        num_media: distinct media to train on, bad ones included.
        max_bad_share: of them may be bad.
        known_bad: path and reason of those found before training.
    """

    def __init__(
        self,
        console: Console,
        num_media: int,
        max_bad_share: float,
        known_bad: Mapping[str, str] = {},
    ) -> None:
        self._console = console
        self._num_media, self._max_bad_share = num_media, max_bad_share
        self.bad: dict[str, str] = dict(known_bad)
        self.bad_val: dict[str, str] = {}
        self.origins: Counter[str] = Counter()
        self.unstored: Counter[str] = Counter()
        self._num_told = len(self.bad)
        refuse_too_many(self.bad, num_media, max_bad_share)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, _: Any, batch: Batch, *__: Any
    ) -> None:
        """Count a batch.

        Raises:
            UserError: too many training media are bad.
        """
        self._count(batch.openings)
        self.bad |= _faults(batch.openings)
        if _any_process(len(self.bad) > self._num_told, pl_module.device):
            self.bad = _merged(self.bad)
            self._num_told = len(self.bad)
            refuse_too_many(self.bad, self._num_media, self._max_bad_share)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, _: Any, batch: Batch, *__: Any
    ) -> None:
        """Remember what could not be validated on."""
        self.bad_val |= _faults(batch.openings)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sum over all processes."""
        self.bad_val = _merged(self.bad_val)
        self.origins = sum(_gathered(self.origins), Counter())
        self.unstored = sum(_gathered(self.unstored), Counter())

    def state_dict(self) -> dict[str, Any]:
        """So that a resumed run reports on the whole of it."""
        counts = {"origins": dict(self.origins), "unstored": dict(self.unstored)}
        return {"bad": self.bad, "bad_val": self.bad_val, **counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting; only the first process, whose counts they are."""
        self.bad |= state_dict["bad"]
        self._num_told = len(self.bad)
        self.bad_val |= state_dict["bad_val"]
        if not (dist.is_initialized() and dist.get_rank()):
            self.origins.update(state_dict["origins"])
            self.unstored.update(state_dict["unstored"])

    def figures(self) -> dict[str, Any]:
        """For the report: openings by origin, hit rates, what was not kept, all bad media."""
        num_opened = sum(self.origins.values())
        rates = {name: round(self.origins[name] / max(num_opened, 1), 4) for name in CACHES}
        return {
            "opened": num_opened,
            "from": dict(self.origins),
            "hit_rate": {name: rate for name, rate in rates.items() if rate},
            "not_kept": dict(self.unstored),
            "bad": self.bad,
            "bad_val": self.bad_val,
        }

    def print_summary(self) -> None:
        """Hit rates and bad media, for the end of a run."""
        num_opened = sum(self.origins.values())
        for name in CACHES:
            if self.origins[name]:
                count = f"{self.origins[name]} of {num_opened} media"
                text = f"{name}: {self.origins[name] / num_opened:.1%} hits ({count})"
                self._console.print(text, highlight=False)
        bad = self.bad | self.bad_val
        if bad:
            self._console.print(f"{len(bad)} bad media were left out:", highlight=False)
        for reason in list(bad.values())[:LISTED]:
            self._console.print(f"  {reason}", highlight=False)
        if len(bad) > LISTED:
            self._console.print(f"  and {len(bad) - LISTED} more, all in the report")

    def _count(self, openings: Iterable[Opening]) -> None:
        for opening in openings:
            self.origins[opening.origin] += 1
            if opening.unstored:
                if not self.unstored:
                    text = f"the cache does not keep frames: {opening.unstored}; training goes on"
                    self._console.print(text, highlight=False)
                self.unstored[opening.unstored] += 1


def refuse_too_many(bad: Mapping[str, str], num_media: int, max_share: float) -> None:
    """Complain when more than a share of all media is bad.

    Raises:
        UserError: it is.
    """
    if len(bad) <= max_share * num_media:
        return
    first = "; ".join(list(bad.values())[:3])
    raise UserError(
        "data.max_unreadable_media",
        f"{len(bad)} of {num_media} training media do not open: {first}",
        f"at most a share of {max_share:g}",
        "list all with molmo-tune check --media, repair them or leave them out, or raise the share",
    )


def _faults(openings: Iterable[Opening]) -> dict[str, str]:
    return {opening.path: opening.fault for opening in openings if opening.fault}


def _any_process(here: bool, device: torch.device) -> bool:
    if not (dist.is_available() and dist.is_initialized()):
        return here
    flag = torch.tensor(int(here), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def _gathered(mine: Any) -> list[Any]:
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def _merged(mine: dict[str, str]) -> dict[str, str]:
    """What all processes know, in one order."""
    together: dict[str, str] = {}
    for one in _gathered(mine):
        together |= one
    return dict(sorted(together.items()))
