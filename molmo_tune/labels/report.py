"""What became of every row of a label file: read, kept, changed or gone, and why.

Readers of label files fail most often by returning success with half of the data. So every reader
counts what it touches in a `Tally`, per class label and kind of shape, and hands back a
`ConversionReport`. A row that does not reach a sample is one of two things:

*left out*  by the meaning of the format: the row says "not there", or "cancelled". Nothing is lost.
*dropped*   it said something that we could not keep. That is a loss; `convert` stops at it unless
            losses were allowed.

For every class and kind ``read = kept + skipped + dropped`` holds. Rows that we add between two
key frames are counted apart, as *interpolated*. The report knows no format and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

FIRST_PLACES = 3
_COLUMNS = ("read", "kept", "interpolated", "clipped", "corrected", "skipped", "dropped")


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Numbers of rows of one class label and kind (``box``, ``polygon``, ``video``, …).

    Args:
        label: the class; empty for what has none, such as a whole video.
        read: rows in the file.
        kept: rows that became part of a sample.
        interpolated: observations added between rows; not part of ``read``.
        clipped: kept rows that were cut at the edge of the frame.
        corrected: rows that were changed otherwise, see the report's ``corrected``.
        skipped: rows that mean "nothing here".
        dropped: rows lost.
    """

    label: str
    kind: str
    read: int = 0
    kept: int = 0
    interpolated: int = 0
    clipped: int = 0
    corrected: int = 0
    skipped: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, how often it applied, and the first few places (``file:line`` or an id)."""

    label: str
    kind: str
    reason: str
    count: int
    places: tuple[str, ...]

    def __str__(self) -> str:
        what = " ".join(part for part in (self.label, self.kind) if part)
        more = ", …" if self.count > len(self.places) else ""
        subject = f"{what}: " if what else ""
        return f"{self.count} × {subject}{self.reason} ({', '.join(self.places)}{more})"


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """The finished account of reading one source.

    Args:
        format: name of the label format.
        source: the label file or folder.
        num_samples: samples that came out.
        counts: one entry per class and kind, in the order of first appearance.
        dropped: what was dropped, and why.
        skipped: what was left out by the meaning of the format, and why.
        corrected: what was changed in order to be kept.
        notes: what the user should know though no row is concerned.
    """

    format: str
    source: str
    num_samples: int
    counts: tuple[ClassCount, ...]
    dropped: tuple[Reason, ...] = ()
    skipped: tuple[Reason, ...] = ()
    corrected: tuple[Reason, ...] = ()
    notes: tuple[Reason, ...] = ()

    @property
    def num_dropped(self) -> int:
        """Rows dropped; anything above 0 needs the user's consent."""
        return sum(reason.count for reason in self.dropped)

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts, lists and numbers, ready for `json.dump`."""
        return {**asdict(self), "num_dropped": self.num_dropped}

    def table(self) -> str:
        """The report as text for a terminal: a line per class, then the reasons.

        The title names the source; places inside of it are told from there.
        """
        head = ("class", "kind", *(name.replace("_", " ") for name in _COLUMNS))
        rows = [
            (c.label or "-", c.kind, *(str(getattr(c, n)) for n in _COLUMNS)) for c in self.counts
        ]
        title = (
            f"{self.source} ({self.format}): {self.num_samples} samples, {self.num_dropped} dropped"
        )
        reasons = [
            f"{word.replace('_', ' ')}: {str(reason).replace(f'{self.source}/', '')}"
            for word in ("dropped", "corrected", "skipped", "notes")
            for reason in getattr(self, word)
        ]
        return "\n".join([title, *_aligned([head, *rows]), *reasons])


@dataclass(slots=True)
class ClassTally:
    """Counts rows of one class and kind while a file is read."""

    label: str
    kind: str
    num_read: int = 0
    num_kept: int = 0
    num_clipped: int = 0
    num_interpolated: int = 0
    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    totals: dict[tuple[str, str], int] = field(default_factory=dict)

    def read(self, count: int = 1) -> None:
        """Rows were found in the file."""
        self.num_read += count

    def keep(self, *, clipped: bool = False) -> None:
        """A row became part of a sample, cut at the edge of the frame or not."""
        self.num_kept += 1
        self.num_clipped += clipped

    def interpolate(self) -> None:
        """An observation was added between two rows."""
        self.num_interpolated += 1

    def drop(self, reason: str, place: str) -> None:
        """A row is lost."""
        self.remember("dropped", reason, place)

    def skip(self, reason: str, place: str) -> None:
        """A row means that nothing is there."""
        self.remember("skipped", reason, place)

    def correct(self, reason: str, place: str) -> None:
        """A row is changed in order to be kept."""
        self.remember("corrected", reason, place)

    def remember(self, outcome: str, reason: str, place: str) -> None:
        """Note a reason and, for the first few times, its place."""
        key = (outcome, reason)
        self.totals[key] = self.totals.get(key, 0) + 1
        known = self.places.setdefault(key, [])
        if len(known) < FIRST_PLACES:
            known.append(place)

    def count(self) -> ClassCount:
        """The numbers as they stand; those of reasons are the sums over them."""
        sums = dict.fromkeys(("corrected", "skipped", "dropped"), 0)
        for (outcome, _), total in self.totals.items():
            sums[outcome] += total
        counted = (self.num_read, self.num_kept, self.num_interpolated, self.num_clipped)
        return ClassCount(self.label, self.kind, *counted, **sums)

    def reasons(self, outcome: str) -> list[Reason]:
        """The reasons of one outcome, in the order of first appearance."""
        return [
            Reason(self.label, self.kind, reason, total, tuple(self.places[found, reason]))
            for (found, reason), total in self.totals.items()
            if found == outcome
        ]


class Tally:
    """The running account of one source; `report` closes it."""

    def __init__(self) -> None:
        self._classes: dict[tuple[str, str], ClassTally] = {}
        self._notes = ClassTally("", "")

    def of(self, label: str, kind: str) -> ClassTally:
        """The account of one class and kind, opened at first use."""
        found = self._classes.get((label, kind))
        if found is None:
            found = self._classes[label, kind] = ClassTally(label, kind)
        return found

    def note(self, reason: str, place: str) -> None:
        """Remember something that concerns no single row."""
        self._notes.remember("note", reason, place)

    def report(self, format: str, source: object, num_samples: int) -> ConversionReport:
        """The account as it stands, frozen."""
        classes = tuple(self._classes.values())
        counts = tuple(c.count() for c in classes)

        def all_of(outcome: str) -> tuple[Reason, ...]:
            return tuple(reason for c in classes for reason in c.reasons(outcome))

        return ConversionReport(
            format,
            str(source),
            num_samples,
            counts,
            dropped=all_of("dropped"),
            skipped=all_of("skipped"),
            corrected=all_of("corrected"),
            notes=tuple(self._notes.reasons("note")),
        )


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Two columns of words to the left, the numbers to the right."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
