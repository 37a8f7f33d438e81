"""Reading label files of any format.

The formats are the modules of the folder `formats` (`molmo_tune.label_formats`), and
`molmo_tune.labels.reader` defines what each provides. This module adds what all formats share:
folders of label files, files of the wrong format, unique ids, and the rule that reading returns at
least one sample or raises an error. `molmo_tune.labels.sniff` detects the format of a file.
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
from molmo_tune.labels.sniff import LIST_FORMATS, check_format, label_files
from molmo_tune.labels.tracks import unique

READERS: dict[str, Reader] = {
    name: import_module(module).READER for name, module in FORMAT_MODULES.items()
}
"""Reader of each label format by name."""


def read_labels(
    format: str, path: Path, media: Path | None = None, layout: TableLayout | None = None
) -> tuple[list[Sample], ConversionReport]:
    """Read a label file, or all label files of a folder in the order of their names.

    Args:
        format: a name from `READERS`.
        path: the file or folder.
        media: the media file or folder; by default the folder of the labels.
        layout: meaning of the columns of a plain table.

    Returns:
        At least one sample, with unique ids and in file order, and the report of what was read.

    Raises:
        UserError: an unknown format, a missing file, a file of a different format, or no sample.
    """
    tally = Tally()
    with _garbage_collection_paused():
        samples = list(iterate_labels(format, path, media, layout, tally))
    return samples, tally.report(format, path, len(samples))


def iterate_labels(
    format: str, path: Path, media: Path | None, layout: TableLayout | None, tally: Tally
) -> Iterator[Sample]:
    """Yield the samples of `read_labels` one at a time; the tally is complete after the last.

    Raises:
        UserError: see `read_labels`; an error in the middle of a file is raised on reaching it.
    """
    reader = READERS.get(format)
    if layout is not None and format != "table":
        raise UserError("columns", f"format {format} defines its own columns", "format: table")
    if reader is None:
        found = f"unknown format {format!r}"
        raise UserError("format", found, "a label format", LIST_FORMATS)
    on_hub = format == "table" and is_on_hub(path)
    files = [path] if on_hub else label_files(path, reader.pattern)
    source = MediaSource(media or (path if path.is_dir() else path.parent), given=media is not None)
    if media is not None and len(files) > 1 and media.is_file():
        found = f"a single file, for {len(files)} label files in {path}"
        raise UserError(media, found, "a media folder")
    for file in files if layout is None else ():
        check_format(format, file, READERS)
    options = {} if layout is None else {"layout": layout}
    ids: dict[str, int] = {}
    for sample in reader.read(files, source, tally, **options):
        id = unique(sample.id, ids)
        yield sample if id == sample.id else replace(sample, id=id)
    if not ids:
        raise _nothing_read(path, tally.report(format, path, 0))


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pause the collector: searching millions of small objects took a third of the reading time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():
                gc.freeze()  # moves them to the oldest generation, which the next collection skips
                gc.unfreeze()
            gc.enable()


def _nothing_read(path: Path, report: ConversionReport) -> UserError:
    reasons = (*report.dropped, *report.skipped)
    why = "; ".join(str(reason) for reason in reasons[:4]) or "the file holds no annotations"
    media = "give the media folder: --media, or media in the recipe"
    fix = media if any("missing" in reason.reason for reason in report.dropped) else ""
    return UserError(path, f"no sample could be read ({why})", "at least one", fix)
