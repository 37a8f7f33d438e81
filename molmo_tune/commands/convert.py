"""`molmo-tune convert LABELS --out FILE.jsonl`: any label file → our JSONL and a report.

What could not be kept is told label by label. Losses stop the command with exit code 1 and nothing
written, unless `--allow-lossy` says that they are known.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from molmo_tune.errors import UserError
from molmo_tune.labels.jsonl import write_jsonl
from molmo_tune.labels.readers import detect_format, read_labels
from molmo_tune.run_folder import write_json


def run(options: argparse.Namespace) -> int:
    """Convert and print the report."""
    console = Console(soft_wrap=True)
    convert(
        options.labels, options.format, options.media, options.out, console, options.allow_lossy
    )
    return 0


def convert(
    labels: Path,
    label_format: str | None,
    media: Path | None,
    out: Path,
    console: Console,
    allow_lossy: bool = False,
) -> None:
    """Read, report, write.

    Raises:
        UserError: the labels cannot be read, or annotations were lost and that is not allowed.
    """
    found = label_format or detect_format(labels)
    samples, report = read_labels(found, labels, media)
    console.print(report.table(), highlight=False)
    if report.num_losses and not allow_lossy:
        raise UserError(
            labels,
            f"{report.num_losses} annotations would be lost",
            fix="see the table; pass --allow-lossy to leave them out",
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(samples, out)
        write_json(out.with_suffix(".report.json"), report.to_json())
    except OSError as error:
        raise UserError(out, f"cannot be written ({error.strerror})") from error
    console.print(f"{len(samples)} samples ({found}) written to {out}", highlight=False)
