"""How long training waits for data: whether the loader keeps up.

The wait is measured around fetching a batch, and divided by the time between the ends of two
batches. The first batch does not count: it waits for the loader processes to start. On a GPU the
fraction is an upper bound, because the device can still be busy while the next batch is fetched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple, TypedDict

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader


class TimedLoader(DataLoader[Any]):
    """A `DataLoader` that measures how long its batches were waited for.

    ``waited_s``: seconds since it was made. Its position is in the data module's state, from which
    a resumed run makes a loader that starts there; hence the empty state, which shows Lightning
    that the loader is resumable.
    """

    waited_s = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = iter(super().__iter__())
        while True:
            started_s = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited_s += time.perf_counter() - started_s
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; see the class."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing; see the class."""


class DataWaitFigures(TypedDict):
    """The report's figures: ``share`` of the time ``of_s`` that was spent waiting, ``waited_s``."""

    share: float
    waited_s: float
    of_s: float
    first_batch_s: float


class _Clock(NamedTuple):
    """Seconds by the clock, and seconds waited until then."""

    time_s: float
    waited_s: float


class RecordDataWait(Callback):
    """Logs the fraction of a step's time spent waiting for data as ``train/data_wait``.

    ``by_step``: that fraction by optimizer step.
    """

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}
        self._step = 0
        self._start: _Clock | None = None  # after the first batch
        self._step_start = self._end = _Clock(0.0, 0.0)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Read the clocks, and record the fraction after an optimizer step."""
        loader = trainer.train_dataloader
        waited_s = loader.waited_s if isinstance(loader, TimedLoader) else 0.0
        now = _Clock(time.perf_counter(), waited_s)
        if self._start is None:
            self._start = self._step_start = now
            self._step = trainer.global_step
        self._end = now
        fraction = _waiting_fraction(self._step_start, now)
        if trainer.global_step != self._step:
            self._step, self._step_start = trainer.global_step, now
            self.by_step[self._step] = fraction
        pl_module.log("train/data_wait", fraction, batch_size=1)

    @property
    def fraction(self) -> float:
        """Fraction of all time since the first batch."""
        return _waiting_fraction(self._start or self._end, self._end)

    def figures(self) -> DataWaitFigures:
        """Return the figures for the report."""
        start = self._start or self._end
        return {
            "share": round(self.fraction, 4),
            "waited_s": round(self._end.waited_s - start.waited_s, 2),
            "of_s": round(self._end.time_s - start.time_s, 2),
            "first_batch_s": round(start.waited_s, 2),
        }


def _waiting_fraction(start: _Clock, end: _Clock) -> float:
    seconds, waited_s = end.time_s - start.time_s, end.waited_s - start.waited_s
    return waited_s / seconds if seconds > 0 else 0.0
