"""Unreadable media, and the caches that served the others, counted over what was trained on.

The loader replaces a sample whose media do not open and reports it with the batch
(`encoding.datasets`); this callback collects the reasons. Whether media open depends on the file
alone, so all epochs, a resumed run and any number of processes agree. (A timeout also depends on
the machine.) Training continues until more than `data.max_unreadable_media` of the training media
are unreadable: then something is wrong that the user should know of, such as a folder that is not
mounted.

All processes know all unreadable media; the other counts are summed over them at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from molmo_tune.encoding.encoded import Batch, Opening
from molmo_tune.encoding.items import Item, Refused
from molmo_tune.errors import UserError
from molmo_tune.training.processes import gather, has_several, is_first_process, is_true_anywhere

LISTED = 20
"""Unreadable media printed at the end; the report has all."""
CACHES = ("frame_cache", "feature_cache", "memory")

MediaFigures = TypedDict(
    "MediaFigures",
    {
        "opened": int,
        "from": dict[str, int],
        "hit_rate": dict[str, float],
        "not_kept": dict[str, int],
        "bad": dict[str, str],
        "bad_val": dict[str, str],
    },
)
"""The report's figures: openings by origin, hit rates, what no cache kept, unreadable media."""


class MediaMonitor(Callback):
    """Counts openings, collects unreadable media, and refuses too many.

    Args:
        console: for a line when a cache cannot keep something, and a summary at the end.
        num_media: distinct training media, unreadable ones included.
        max_unreadable: fraction of them that may be unreadable.
        known_bad: path and reason of those found before training.

    Raises:
        UserError: too many are known to be unreadable already.
    """

    def __init__(
        self,
        console: Console,
        num_media: int,
        max_unreadable: float,
        known_bad: Mapping[str, str] = {},
    ) -> None:
        self._console = console
        self._num_media, self._max_unreadable = num_media, max_unreadable
        self.bad: dict[str, str] = dict(known_bad)
        self.bad_val: dict[str, str] = {}
        self.origins: Counter[str] = Counter()
        self.unstored: Counter[str] = Counter()
        self._num_checked = len(self.bad)
        refuse_too_many(self.bad, num_media, max_unreadable)

    @classmethod
    def of_items(
        cls,
        console: Console,
        items: Iterable[Item],
        refused: Iterable[Refused],
        max_unreadable: float,
    ) -> MediaMonitor:
        """Return a monitor of the media of training items, which knows the refused ones."""
        bad = {one.bad_medium: one.reason for one in refused if one.bad_medium}
        paths = {str(item.sample.media.paths[0]) for item in items if item.sample.media.paths}
        return cls(console, len(paths | bad.keys()), max_unreadable, bad)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, _: Any, batch: Batch, *__: Any
    ) -> None:
        """Count a batch.

        Raises:
            UserError: too many training media are unreadable.
        """
        self._count(batch.openings)
        self.bad |= _reasons(batch.openings)
        if is_true_anywhere(len(self.bad) > self._num_checked, pl_module.device):
            self.bad = _merged(self.bad)
            self._num_checked = len(self.bad)
            refuse_too_many(self.bad, self._num_media, self._max_unreadable)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, _: Any, batch: Batch, *__: Any
    ) -> None:
        """Collect unreadable validation media."""
        self.bad_val |= _reasons(batch.openings)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sum the counts over all processes."""
        self.bad_val = _merged(self.bad_val)
        self.origins = sum(gather(self.origins), Counter())
        self.unstored = sum(gather(self.unstored), Counter())

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, so that a resumed run reports on all of its steps."""
        counts = {"origins": dict(self.origins), "unstored": dict(self.unstored)}
        return {"bad": self.bad, "bad_val": self.bad_val, **counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting; the counts belong to the first process."""
        self.bad |= state_dict["bad"]
        self._num_checked = len(self.bad)
        self.bad_val |= state_dict["bad_val"]
        if not has_several() or is_first_process():
            self.origins.update(state_dict["origins"])
            self.unstored.update(state_dict["unstored"])

    def figures(self) -> MediaFigures:
        """Return the figures for the report."""
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
        """Print hit rates and unreadable media at the end of a run."""
        num_opened = sum(self.origins.values())
        for name in CACHES:
            if self.origins[name]:
                count = f"{self.origins[name]} of {num_opened} media"
                self._print(f"{name}: {self.origins[name] / num_opened:.1%} hits ({count})")
        bad = self.bad | self.bad_val
        if bad:
            self._print(f"skipped {len(bad)} unreadable media:")
        for reason in list(bad.values())[:LISTED]:
            self._print(f"  {reason}")
        if len(bad) > LISTED:
            self._print(f"  and {len(bad) - LISTED} more, all in report.json")

    def _count(self, openings: Iterable[Opening]) -> None:
        for opening in openings:
            self.origins[opening.origin] += 1
            if opening.unstored:
                if not self.unstored:
                    self._print(f"frames not cached: {opening.unstored}; training continues")
                self.unstored[opening.unstored] += 1

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False)


def refuse_too_many(bad: Mapping[str, str], num_media: int, max_unreadable: float) -> None:
    """Check that the unreadable fraction of the media is small enough.

    Raises:
        UserError: it is not.
    """
    if len(bad) <= max_unreadable * num_media:
        return
    first = "; ".join(list(bad.values())[:3])
    raise UserError(
        "data.max_unreadable_media",
        f"{len(bad)} of {num_media} training media do not open: {first}",
        f"at most a fraction of {max_unreadable:g}",
        "list all with molmo-tune check --media and fix or remove them, or raise the fraction",
    )


def _reasons(openings: Iterable[Opening]) -> dict[str, str]:
    return {opening.path: opening.fault for opening in openings if opening.fault}


def _merged(mine: dict[str, str]) -> dict[str, str]:
    """Return the entries of all processes, sorted."""
    together: dict[str, str] = {}
    for one in gather(mine):
        together |= one
    return dict(sorted(together.items()))
