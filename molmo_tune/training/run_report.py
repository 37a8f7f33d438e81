"""How a run ended: its result for the caller, `metrics.csv` and `report.json` for its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NotRequired, TypedDict

from molmo_tune.atomic_files import write_json
from molmo_tune.encoding.items import Item
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.callbacks.data_wait import DataWaitFigures
from molmo_tune.training.callbacks.media_monitor import MediaFigures
from molmo_tune.training.callbacks.pack_fill import PackFigures
from molmo_tune.training.callbacks.step_metrics import write_metrics
from molmo_tune.training.fit import FittedRun
from molmo_tune.training.processes import is_first_process
from molmo_tune.training.read_data import TrainingData
from molmo_tune.training.run_start import RunStart


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """How a run ended.

    ``losses``: pairs of optimizer step and weighted mean loss. ``trainable_share``: fraction of the
    weights that was trained.
    """

    run: RunFolder
    steps: int
    losses: tuple[tuple[int, float], ...]
    trainable_share: float
    seconds: float


class SplitCounts(TypedDict):
    """What a split of the data contains."""

    samples: int
    sequences: int
    questions: int
    tokens: int


class RunFigures(TypedDict):
    """The report's sections that callbacks and preference training fill."""

    packing: PackFigures | None
    media: MediaFigures
    data_wait: DataWaitFigures
    preference: NotRequired[dict[str, object]]


def report_run(
    start: RunStart,
    data: TrainingData,
    fitted: FittedRun,
    preference: dict[str, object] | None = None,
) -> TrainingResult:
    """Print the media summary and write the run's metrics and report, in the first process.

    Args:
        start: recipe and folder.
        data: trained on.
        fitted: the finished training.
        preference: figures of preference training, for its section of the report.
    """
    result = TrainingResult(
        start.run,
        fitted.steps,
        tuple(fitted.recorders.losses.losses),
        fitted.trainable_fraction,
        fitted.seconds,
    )
    if is_first_process():
        fitted.recorders.media.print_summary()
        _write_metrics(start, fitted)
        write_json(start.run.report, _report(start, data, result, _figures(fitted, preference)))
    return result


def _write_metrics(start: RunStart, fitted: FittedRun) -> None:
    recorders = fitted.recorders
    columns = {"data_wait": recorders.data_wait.by_step, **recorders.metrics.by_step}
    is_resumed = start.checkpoint is not None
    write_metrics(start.run.metrics, recorders.losses.losses, columns, keep_earlier=is_resumed)


def _figures(fitted: FittedRun, preference: dict[str, object] | None) -> RunFigures:
    recorders = fitted.recorders
    figures: RunFigures = {
        "packing": recorders.packs.figures() if recorders.packs is not None else None,
        "media": recorders.media.figures(),
        "data_wait": recorders.data_wait.figures(),
    }
    if preference is not None:
        figures["preference"] = preference | recorders.metrics.figures()
    return figures


def _report(
    start: RunStart, data: TrainingData, result: TrainingResult, figures: RunFigures
) -> dict[str, object]:
    return {
        "base": start.recipe.model.name,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "final_loss": result.losses[-1][1] if result.losses else None,
        "trainable_share": result.trainable_share,
        "train": _counts(data.train),
        "val": _counts(data.val),
        "sources": [
            {"path": str(one.source.path), "share": one.share, "per_epoch": one.repeats}
            for one in data.shares
        ]
        or None,
        **figures,
        "skipped": [asdict(one) for one in data.refused + data.refused_val],
    }


def _counts(items: Sequence[Item]) -> SplitCounts:
    return {
        "samples": len({item.sample.id for item in items}),
        "sequences": len(items),
        "questions": sum(len(item.conversations) for item in items),
        "tokens": sum(item.num_tokens for item in items),
    }
