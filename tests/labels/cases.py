"""Golden cases of the label formats: input files and what must be read from them.

    tests/labels/coco/
        README.md           the tool, where the files come from, their license
        malformed.json      a wrong type, a negative size and NaN: which text to replace, the reason
        basic/              every format has this case; damage and attacks start from it too
            case.json       how to read it
            x.json          the label files
            expected.jsonl  the samples in our own format, media paths relative to the case
            report.json     the report of the conversion

`tests/test_label_formats.py` reads all cases; ``python -m tests.labels.update`` rewrites the two
expected files after a deliberate change and prints the difference. Keys of case.json:

    path        what to read, a file or folder of the case
    label_file  the file to damage (default: path)
    media       media folder of the case (default: none is named)
    draw        media to draw: name -> [width, height] or [width, height, frames, fps]
    layout      columns of a plain table
    detected    false: the format cannot be recognized from the file
    media_name  the text that names the media file in media_name_file (default: label_file);
                null where a label file's own name does; in every basic case
    needs       a library without which the case is skipped
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from molmo_tune.labels.formats.table.table import TableLayout
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.record import format_record
from molmo_tune.labels.report import ConversionReport
from molmo_tune.labels.sample import Sample
from tests.labels.media import draw_media

ROOT = Path(__file__).parent
EXPECTED, REPORT, HOW, MALFORMED = "expected.jsonl", "report.json", "case.json", "malformed.json"


@dataclass(frozen=True)
class Inputs:
    """A case on disk, ready to be read."""

    format: str
    folder: Path
    path: Path
    label_file: Path
    media: Path | None
    options: Mapping[str, Any]

    def read(self) -> tuple[list[Sample], ConversionReport]:
        """Read the labels."""
        return read_labels(self.format, self.path, self.media, **self.options)


@dataclass(frozen=True)
class Case:
    """One golden case; the module's text explains the fields."""

    format: str
    name: str
    path: str
    label_file: str = ""
    media: str | None = None
    draw: Mapping[str, Sequence[int]] = field(default_factory=dict)
    layout: Mapping[str, Any] | None = None
    detected: bool = True
    media_name: str | None = ""
    media_name_file: str = ""
    needs: str | None = None

    @property
    def folder(self) -> Path:
        """Its folder in the repository."""
        return ROOT / self.format / self.name

    def is_readable(self) -> bool:
        """Whether the library it needs is installed."""
        return self.needs is None or find_spec(self.needs) is not None

    def write(self, to: Path, *, draw: bool = True) -> Inputs:
        """Copy the label files to a folder and draw the media there.

        Skips the test where the library it needs is not installed.
        """
        if self.needs:
            pytest.importorskip(self.needs)
        ignored = shutil.ignore_patterns(EXPECTED, REPORT, HOW)
        shutil.copytree(self.folder, to, ignore=ignored, dirs_exist_ok=True)
        for name, size in self.draw.items() if draw else ():
            draw_media(to / name, size[:2], *size[2:])
        media = None if self.media is None else to / self.media
        layout = {} if self.layout is None else {"layout": _table_layout(self.layout)}
        label_file = to / (self.label_file or self.path)
        return Inputs(self.format, to, to / self.path, label_file, media, layout)


def all_cases() -> Iterator[Case]:
    """All cases in the order of their names."""
    for how in sorted(ROOT.glob(f"*/*/{HOW}")):
        known = json.loads(how.read_text(encoding="utf-8"))
        yield Case(how.parent.parent.name, how.parent.name, **known)


CASES: dict[tuple[str, str], Case] = {(case.format, case.name): case for case in all_cases()}
BASIC: dict[str, Case] = {format: case for (format, name), case in CASES.items() if name == "basic"}
"""The first case of every format."""


def outcome(case: Case, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read a case and return its samples and report as JSON, with paths relative to the case."""
    samples, report = case.write(folder).read()
    found = [format_record(sample) for sample in samples], _said(report.to_json())
    records, said = json.loads(_relative(found, folder))
    return records, said


def expected(case: Case) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what must be read from a case."""
    lines = (case.folder / EXPECTED).read_text(encoding="utf-8").splitlines()
    report = json.loads((case.folder / REPORT).read_text(encoding="utf-8"))
    return [json.loads(line) for line in lines], report


def _said(value: Any) -> Any:
    """A report without zeros and empty lists."""
    if isinstance(value, dict):
        return {key: _said(inner) for key, inner in value.items() if inner not in (0, (), [])}
    return [_said(inner) for inner in value] if isinstance(value, list | tuple) else value


def _relative(value: object, folder: Path) -> str:
    place = json.dumps(str(folder), ensure_ascii=False)[1:-1]
    text = json.dumps(value, ensure_ascii=False)
    return text.replace(f"{place}/", "").replace(place, ".")


def _table_layout(known: Mapping[str, Any]) -> TableLayout:
    lists = {key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
    return TableLayout(**lists)


def differences(found: object, wanted: object, place: str = "") -> Iterable[str]:
    """Places where two JSON values differ; numbers may by 1e-6, as libraries round differently."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(found.keys() - wanted.keys())]:
            yield from differences(found.get(key), wanted.get(key), f"{place}.{key}")
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            yield from differences(*pair, f"{place}[{number}]")
    elif _are_numbers(found, wanted):
        if abs(found - wanted) > 1e-6:  # type: ignore[operator]
            yield f"{place}: {found}, expected {wanted}"
    elif found != wanted or type(found) is not type(wanted):
        yield f"{place}: {found!r}, expected {wanted!r}"


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
