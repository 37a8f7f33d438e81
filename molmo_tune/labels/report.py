"""Report of what happened to every row of a label file.

The usual failure of a label reader is to return success with half of the data. So every reader
counts each row in a `Tally`, per class label and kind of shape, and returns a `ConversionReport`. A
row that is not in a sample has one of two outcomes:

*skipped*   as the format defines: the row says "absent" or "cancelled". No label is missing.
*dropped*   the row is a label that could not be kept; `convert` stops unless this is allowed.

For every class and kind ``read = kept + skipped + dropped``. Observations added between key frames
are counted separately, as *interpolated*. This module knows no format and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

FIRST_PLACES = 3
_COLUMNS = ("read", "kept", "interpolated", "clipped", "corrected", "skipped", "dropped")


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Row counts of one class label and kind (``box``, ``polygon``, ``video``, …).

    Args:
        label: class label; empty for kinds without one, such as a video.
        read: rows in the file.
        kept: rows that became part of a sample.
        interpolated: observations added between rows; not part of ``read``.
        clipped: kept rows that were clipped at the edge of the frame.
        corrected: rows changed in another way, see the report's ``corrected``.
        skipped: rows without a label to keep, as the format defines.
        dropped: rows with a label that could not be kept.
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
    """Reason for an outcome, its count and its first places (``file:line`` or an id)."""

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
    """Report of reading one source.

    Args:
        format: name of the label format.
        source: the label file or folder.
        num_samples: number of samples read.
        counts: one entry per class and kind, in the order of first appearance.
        dropped: reasons of dropped rows.
        skipped: reasons of skipped rows.
        corrected: reasons of rows that were changed in order to be kept.
        notes: remarks that do not belong to a row.
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
        """Number of dropped rows; above 0, `convert` needs the user's consent."""
        return sum(reason.count for reason in self.dropped)

    def to_json(self) -> dict[str, object]:
        """Return the report as plain dicts, lists and numbers for `json.dump`."""
        return {**asdict(self), "num_dropped": self.num_dropped}

    def table(self) -> str:
        """Return the report as text: a line per class, then the reasons.

        Places are relative to the source, which the title names.
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
    """Counter of the rows of one class and kind."""

    label: str
    kind: str
    num_read: int = 0
    num_kept: int = 0
    num_clipped: int = 0
    num_interpolated: int = 0
    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    totals: dict[tuple[str, str], int] = field(default_factory=dict)

    def read(self, count: int = 1) -> None:
        """Count rows found in the file."""
        self.num_read += count

    def keep(self, *, clipped: bool = False) -> None:
        """Count a row that became part of a sample, clipped at the edge of the frame or not."""
        self.num_kept += 1
        self.num_clipped += clipped

    def interpolate(self) -> None:
        """Count an observation added between two rows."""
        self.num_interpolated += 1

    def drop(self, reason: str, place: str) -> None:
        """Count a row that could not be kept."""
        self.record("dropped", reason, place)

    def skip(self, reason: str, place: str) -> None:
        """Count a row without a label to keep."""
        self.record("skipped", reason, place)

    def correct(self, reason: str, place: str) -> None:
        """Count a row that was changed in order to be kept."""
        self.record("corrected", reason, place)

    def record(self, outcome: str, reason: str, place: str) -> None:
        """Count a reason and record its first places."""
        key = (outcome, reason)
        self.totals[key] = self.totals.get(key, 0) + 1
        places = self.places.setdefault(key, [])
        if len(places) < FIRST_PLACES:
            places.append(place)

    def count(self) -> ClassCount:
        """Return the counts so far."""
        sums = dict.fromkeys(("corrected", "skipped", "dropped"), 0)
        for (outcome, _), total in self.totals.items():
            sums[outcome] += total
        counted = (self.num_read, self.num_kept, self.num_interpolated, self.num_clipped)
        return ClassCount(self.label, self.kind, *counted, **sums)

    def reasons(self, outcome: str) -> list[Reason]:
        """Return the reasons of one outcome, in the order of first appearance."""
        return [
            Reason(self.label, self.kind, reason, total, tuple(self.places[found, reason]))
            for (found, reason), total in self.totals.items()
            if found == outcome
        ]


class Tally:
    """Counter of the rows of one source."""

    def __init__(self) -> None:
        self._classes: dict[tuple[str, str], ClassTally] = {}
        self._notes = ClassTally("", "")

    def of(self, label: str, kind: str) -> ClassTally:
        """Return the counter of one class and kind, created at first use."""
        found = self._classes.get((label, kind))
        if found is None:
            found = self._classes[label, kind] = ClassTally(label, kind)
        return found

    def note(self, reason: str, place: str) -> None:
        """Record a remark that does not belong to a row."""
        self._notes.record("note", reason, place)

    def report(self, format: str, source: object, num_samples: int) -> ConversionReport:
        """Return the report of the counts so far."""
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
    """Align two text columns to the left and the numbers to the right."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
