"""`molmo-tune convert LABELS --out FILE.jsonl`: any label file → our JSONL and a report.

The report names every annotation that was not kept. If annotations would be dropped, the command
stops with exit code 1 and writes nothing, unless `--allow-lossy` is given. Samples are written as
they are read, so a table of a million rows never has to fit in memory. A plain table does not
describe itself: `--columns`, `--units` and `--box` do, with the same values as in a recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from molmo_tune.choices import BoxStyle, Units, words_of
from molmo_tune.commands.console import new_console
from molmo_tune.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.labels.formats.table.table import TableLayout
    from molmo_tune.labels.report import ConversionReport

HELP = "convert a tool's label file to our JSONL, with a report"
_COLUMNS_EXAMPLE = "image: file, label: class, box: [x1, y1, x2, y2]"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add input, output and the description of a plain table."""
    parser.add_argument("labels", type=Path, help="label file, or folder of label files")
    parser.add_argument(
        "--format", metavar="NAME", help="label format, see molmo-tune formats (default: detect)"
    )
    parser.add_argument(
        "--media", type=Path, help="media file or folder (default: the folder of the labels)"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    parser.add_argument(
        "--allow-lossy", action="store_true", help="write the file despite dropped annotations"
    )
    parser.add_argument("--columns", help=f"columns of a plain table, e.g., '{_COLUMNS_EXAMPLE}'")
    parser.add_argument(
        "--units",
        choices=words_of(Units),
        help="units of a plain table: pixels, 0 to 100 or 0 to 1",
    )
    parser.add_argument(
        "--box",
        choices=words_of(BoxStyle),
        help="boxes of a plain table: two corners (xyxy, default), "
        "corner and size (xywh) or center and size (cxcywh)",
    )


def run(options: argparse.Namespace) -> int:
    """Convert and print the report."""
    layout = _layout(options) if options.columns or options.units or options.box else None
    convert(
        options.labels,
        options.format or ("table" if layout else None),
        options.media,
        options.out,
        new_console(),
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
    """Convert sample by sample, print the report and keep the file if nothing was dropped.

    Args:
        labels: label file or folder.
        label_format: name of the format; detected when None.
        media: media file or folder.
        out: JSONL file to write; its report goes next to it, as ``.report.json``.
        console: for the report.
        allow_lossy: keep the file even if annotations were dropped.
        layout: columns of a plain table.

    Raises:
        UserError: the labels cannot be read, or annotations were dropped without `allow_lossy`.
    """
    from molmo_tune.labels.formats.jsonl import write_jsonl
    from molmo_tune.labels.read import iterate_labels
    from molmo_tune.labels.report import Tally
    from molmo_tune.labels.survey import detect_format

    found = label_format or detect_format(labels)
    tally = Tally()

    def accept(num_samples: int) -> None:
        _report(tally.report(found, labels, num_samples), labels, out, console, allow_lossy)

    samples = iterate_labels(found, labels, media, layout, tally)
    num_samples = write_jsonl(samples, out, accept)
    console.print(f"wrote {num_samples} samples ({found}) to {out}", highlight=False)


def _report(
    report: ConversionReport, labels: Path, out: Path, console: Console, allow_lossy: bool
) -> None:
    from molmo_tune.atomic_files import write_json

    console.print(report.table(), highlight=False)
    if report.num_dropped and not allow_lossy:
        raise UserError(
            labels,
            f"would drop {report.num_dropped} annotations",
            fix="see the table; pass --allow-lossy to drop them",
        )
    write_json(out.with_suffix(".report.json"), report.to_json())


def _layout(options: argparse.Namespace) -> TableLayout | None:
    """Return the layout of a plain table, validated like the same keys in a recipe."""
    import yaml
    from pydantic import ValidationError

    from molmo_tune.labels.formats.table.table import layout_of
    from molmo_tune.recipe.sections import DataSource

    given = {"units": options.units, "box": options.box}
    try:
        columns = yaml.safe_load(f"{{{options.columns or ''}}}")
        source = DataSource.model_validate(
            {"format": "table", "path": options.labels, "columns": columns}
            | {key: value for key, value in given.items() if value is not None}
        )
    except (yaml.YAMLError, ValidationError) as error:
        raise UserError("--columns", f"invalid: {options.columns}", _COLUMNS_EXAMPLE) from error
    return layout_of(source)
