"""How a run ended, for its folder: the metrics by step and the report."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from molmo_tune.atomic_files import atomic_file, write_json
from molmo_tune.encoding.items import Item, Refused
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """How a run ended. ``losses``: (optimizer step, weighted mean loss)."""

    run: RunFolder
    steps: int
    losses: tuple[tuple[int, float], ...]
    trainable_share: float
    seconds: float


def write_metrics(
    run: RunFolder,
    losses: list[tuple[int, float]],
    figures: Mapping[str, Mapping[int, float]],
    append: bool,
) -> None:
    """Losses and other figures by step, each a column; rows of before a resume are kept."""
    names = ("step", "train_loss", *figures)
    kept: list[list[str]] = []
    if append and run.metrics.is_file():
        with run.metrics.open(newline="", encoding="utf-8") as file:
            first = losses[0][0] if losses else 0
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < first]
        kept = [[row.get(name) or "" for name in names] for row in rows]
    with atomic_file(run.metrics) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(kept)
        for step, loss in losses:
            found = (values.get(step) for values in figures.values())
            writer.writerow([step, loss, *("" if v is None else f"{v:.4f}" for v in found)])


def write_report(
    result: TrainingResult,
    recipe: Recipe,
    train_items: list[Item],
    val_items: list[Item],
    refused: list[Refused],
    figures: dict[str, Any],
) -> None:
    """What was trained on what; `figures` of the callbacks go in as they are."""
    report = {
        "base": recipe.model.name,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "final_loss": result.losses[-1][1] if result.losses else None,
        "trainable_share": result.trainable_share,
        "train": _counts(train_items),
        "val": _counts(val_items),
        **figures,
        "skipped": [asdict(one) for one in refused],
    }
    write_json(result.run.report, report)


def _counts(items: list[Item]) -> dict[str, int]:
    return {
        "samples": len({item.sample.id for item in items}),
        "sequences": len(items),
        "questions": sum(len(item.conversations) for item in items),
        "tokens": sum(item.num_tokens for item in items),
    }
