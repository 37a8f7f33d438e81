"""How long training waits for data: the figure that says whether the loader keeps up.

Waiting is measured where it happens, around the fetching of a batch, and set against the time that
passes between the ends of two batches. The first batch does not count: it waits for processes to
start. On a GPU the figure is an upper bound, because the device may still be busy while the next
batch is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader


class TimedLoader(DataLoader[Any]):
    """A `DataLoader` that knows how long its batches were waited for.

    ``waited_s``: in all since it was made.
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


class RecordDataWait(Callback):
    """Log the share of a step's time that it waited for data (`train/data_wait`).

    ``by_step``: that share by optimizer step, for the metrics' file.
    """

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}
        self._step = 0
        self._start: tuple[float, float] | None = None  # time and waiting after the first batch
        self._step_start = (0.0, 0.0)
        self._end = (0.0, 0.0)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Look at the clocks; log when an optimizer step is done."""
        loader = trainer.train_dataloader
        waited_s = loader.waited_s if isinstance(loader, TimedLoader) else 0.0
        now = (time.perf_counter(), waited_s)
        if self._start is None:
            self._start = self._step_start = now
            self._step = trainer.global_step
        self._end = now
        share = _share(self._step_start, now)
        if trainer.global_step != self._step:
            self._step, self._step_start = trainer.global_step, now
            self.by_step[self._step] = share
        pl_module.log("train/data_wait", share, batch_size=1)

    @property
    def share(self) -> float:
        """Of all time since the first batch."""
        return _share(self._start or self._end, self._end)

    def figures(self) -> dict[str, float]:
        """For the report."""
        start = self._start or self._end
        seconds, waited_s = (end - begin for begin, end in zip(start, self._end, strict=True))
        return {
            "share": round(self.share, 4),
            "waited_s": round(waited_s, 2),
            "of_s": round(seconds, 2),
            "first_batch_s": round(start[1], 2),
        }


def _share(start: tuple[float, float], end: tuple[float, float]) -> float:
    seconds, waited_s = end[0] - start[0], end[1] - start[1]
    return waited_s / seconds if seconds > 0 else 0.0
