"""`molmo-tune convert LABELS --out FILE.jsonl`: any label file → our JSONL and a report.

What could not be kept is told label by label. Losses stop the command with exit code 1 and nothing
written, unless `--allow-lossy` says that they are known. Samples are written as they are read, so a
table of a million rows is never held. A plain table says nothing about itself: `--columns` and
`--units` do, in the words of a recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console

from molmo_tune.atomic_files import write_json
from molmo_tune.errors import UserError
from molmo_tune.labels.formats.jsonl import write_jsonl
from molmo_tune.labels.formats.table.table import TableLayout, layout_of
from molmo_tune.labels.read import iterate_labels
from molmo_tune.labels.report import ConversionReport, Tally
from molmo_tune.labels.survey import detect_format
from molmo_tune.recipe.sections import DataSource


def run(options: argparse.Namespace) -> int:
    """Convert and print the report."""
    layout = _layout(options) if options.columns or options.units else None
    convert(
        options.labels,
        options.format or ("table" if layout else None),
        options.media,
        options.out,
        Console(soft_wrap=True, markup=False),
        options.allow_lossy,
        layout,
    )
    return 0


def convert(
    labels: Path,
    label_format: str | None,
    media: Path | None,
    out: Path,
    console: Console,
    allow_lossy: bool = False,
    layout: TableLayout | None = None,
) -> None:
    """Read and write sample by sample, report, and keep the file if nothing was lost.

    Raises:
        UserError: the labels cannot be read, or annotations were lost and that is not allowed.
    """
    found = label_format or detect_format(labels)
    tally = Tally()

    def accept(num_samples: int) -> None:
        _report(tally.report(found, labels, num_samples), labels, out, console, allow_lossy)

    samples = iterate_labels(found, labels, media, layout, tally)
    num_samples = write_jsonl(samples, out, accept)
    console.print(f"{num_samples} samples ({found}) written to {out}", highlight=False)


def _report(
    report: ConversionReport, labels: Path, out: Path, console: Console, allow_lossy: bool
) -> None:
    console.print(report.table(), highlight=False)
    if report.num_dropped and not allow_lossy:
        raise UserError(
            labels,
            f"{report.num_dropped} annotations would be lost",
            fix="see the table; pass --allow-lossy to leave them out",
        )
    write_json(out.with_suffix(".report.json"), report.to_json())


def _layout(options: argparse.Namespace) -> TableLayout | None:
    """The columns in a recipe's words: ``image: file, label: class, box: [x1, y1, x2, y2]``."""
    where = "--columns"
    try:
        columns = yaml.safe_load(f"{{{options.columns or ''}}}")
        source = DataSource(
            format="table",
            path=options.labels,
            columns=columns,
            units=options.units,
            box=options.box,
        )
    except (yaml.YAMLError, ValidationError) as error:
        example = "image: file, label: class, box: [x1, y1, x2, y2]"
        raise UserError(where, f"not understood: {options.columns}", example) from error
    return layout_of(source)
