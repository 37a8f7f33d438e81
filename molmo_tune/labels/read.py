"""Read label files of any format: folders, the report, and no silent empty result.

The list of formats is the folder `formats` (`molmo_tune.label_formats`); `molmo_tune.labels.reader`
says what each of its modules provides. What all formats share is here: folders of label files,
files of another format, unique ids, and the rule that reading never ends with no sample and no
error. `molmo_tune.labels.sniff` detects the format of a file that comes without its name.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.labels.files.hub_rows import is_on_hub
from molmo_tune.labels.formats.table.table import TableLayout
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import ConversionReport, Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.sniff import check_format, label_files
from molmo_tune.labels.tracks import unique

READERS: dict[str, Reader] = {
    name: import_module(module).READER for name, module in FORMAT_MODULES.items()
}
"""Every label format by name."""


def read_labels(
    format: str, path: Path, media: Path | None = None, layout: TableLayout | None = None
) -> tuple[list[Sample], ConversionReport]:
    """Read a label file, or all label files of a folder in the order of their names.

    Args:
        format: a name from `READERS`.
        path: the file or folder.
        media: the media file or folder; by default the folder of the labels.
        layout: what the columns of a plain table mean.

    Returns:
        At least one sample, with unique ids and in file order, and the account of what was read.

    Raises:
        UserError: an unknown format, no such file, a file of another format, or no sample in it.
    """
    tally = Tally()
    with _no_collector():
        samples = list(iterate_labels(format, path, media, layout, tally))
    return samples, tally.report(format, path, len(samples))


def iterate_labels(
    format: str, path: Path, media: Path | None, layout: TableLayout | None, tally: Tally
) -> Iterator[Sample]:
    """The samples of `read_labels` one at a time; the tally is complete after the last.

    Raises:
        UserError: see `read_labels`; faults in the middle of a file come when it is reached.
    """
    reader = READERS.get(format)
    if layout is not None and format != "table":
        raise UserError("columns", f"format: {format} has columns of its own", "format: table")
    if reader is None:
        raise UserError("format", f"unknown format {format!r}", f"one of {', '.join(READERS)}")
    on_hub = format == "table" and is_on_hub(path)
    files = [path] if on_hub else label_files(path, reader.pattern)
    source = MediaSource(media or (path if path.is_dir() else path.parent), given=media is not None)
    if media is not None and len(files) > 1 and media.is_file():
        found = f"a single file, for {len(files)} label files in {path}"
        raise UserError(media, found, "the folder of their media")
    for file in files if layout is None else ():
        check_format(format, file, READERS)
    options = {} if layout is None else {"layout": layout}
    taken: dict[str, int] = {}
    for sample in reader.read(files, source, tally, **options):
        id = unique(sample.id, taken)
        yield sample if id == sample.id else replace(sample, id=id)
    if not taken:
        raise _nothing_read(path, tally.report(format, path, 0))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Labels are millions of small objects without cycles: looking for some took a third of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():
                gc.freeze()  # then they count as old, and the next look passes them over
                gc.unfreeze()
            gc.enable()


def _nothing_read(path: Path, report: ConversionReport) -> UserError:
    findings = (*report.dropped, *report.skipped)
    why = "; ".join(str(finding) for finding in findings[:4]) or "the file holds no annotations"
    named = "name the folder of the media: --media, or media: in the recipe"
    fix = named if any("missing" in finding.reason for finding in report.dropped) else ""
    return UserError(path, f"no sample could be read ({why})", "at least one", fix)
