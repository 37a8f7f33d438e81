"""THE list of label readers, and the two questions put to it: read this, and what is this.

A format is one module beside this one (how to tell it, how to read one file of it) and one line in
`READERS`; the recipe has a word for it in `LABEL_FORMATS`, and a test keeps the two equal. A reader
is a pure function of a file and a media folder; what is the same for all formats is done here:
folders of label files, files of another format, ids that are unique, and the rule that reading
never ends with nothing and no error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.coco import looks_like_coco, read_coco
from molmo_tune.labels.cvat_video import looks_like_cvat_video, read_cvat_video
from molmo_tune.labels.jsonl import looks_like_jsonl, read_jsonl_source
from molmo_tune.labels.label_studio_video import (
    looks_like_label_studio_video,
    read_label_studio_video,
)
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.opening import read_head
from molmo_tune.labels.report import ConversionReport, Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.tracks import unique
from molmo_tune.labels.yolo import looks_like_yolo, read_yolo


@dataclass(frozen=True, slots=True)
class Reader:
    """One label format.

    Args:
        read: samples of the files, in order; counts rows in the tally.
        looks_like: whether the beginning of a file is of this format.
        pattern: names of such files in a folder.
        title: what the format is called, and what it is told by.
    """

    read: Callable[[Sequence[Path], MediaSource, Tally], list[Sample]]
    looks_like: Callable[[str], bool]
    pattern: str
    title: str


def one_by_one(
    read: Callable[[Path, MediaSource, Tally], list[Sample]],
) -> Callable[[Sequence[Path], MediaSource, Tally], list[Sample]]:
    """A reader of one file as one of several, for formats whose files do not need each other."""

    def read_all(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
        return [sample for file in files for sample in read(file, media, tally)]

    return read_all


READERS: dict[str, Reader] = {
    "cvat_video": Reader(
        one_by_one(read_cvat_video),
        looks_like_cvat_video,
        "*.xml",
        "CVAT for video 1.1 (XML with <track>)",
    ),
    "label_studio_video": Reader(
        one_by_one(read_label_studio_video),
        looks_like_label_studio_video,
        "*.json",
        "Label Studio video (JSON with videorectangle)",
    ),
    "coco": Reader(
        one_by_one(read_coco), looks_like_coco, "*.json", "COCO JSON (images and annotations)"
    ),
    "yolo": Reader(
        read_yolo, looks_like_yolo, "*.txt", "YOLO (a folder of txt files: class and shares)"
    ),
    "jsonl": Reader(
        one_by_one(read_jsonl_source),
        looks_like_jsonl,
        "*.jsonl",
        "molmo-tune JSONL (lines with molmo-tune/1)",
    ),
}

_NOT_READ = {
    "a zip archive; unpack it first": r"\APK\x03\x04",
    "CVAT for images (export the task as CVAT for video 1.1)": r"<annotations\b[\s\S]*<image\s",
    "COCO JSON with videos": r'\A\s*\{[\s\S]*"videos"\s*:\s*\[\s*\{',
    "Pascal VOC XML, which is not read yet": r"<annotation>",
    "Label Studio without video rectangles": r'"(from|to)_name"\s*:',
}


def read_labels(
    format: str, path: Path, media: Path | None = None
) -> tuple[list[Sample], ConversionReport]:
    """Read a label file, or all label files of a folder in the order of their names.

    Args:
        format: a name from `READERS`.
        path: the file or folder.
        media: the media file or folder; by default the folder of the labels.

    Returns:
        At least one sample, with unique ids and in file order, and the account of what was read.

    Raises:
        UserError: an unknown format, no such file, a file of another format, or no sample in it.
    """
    reader = READERS.get(format)
    if reader is None:
        raise UserError("labels", f"unknown format {format!r}", f"one of {', '.join(READERS)}")
    files = _files(path, reader.pattern)
    source = MediaSource(media or (path if path.is_dir() else path.parent), given=media is not None)
    if media is not None and len(files) > 1 and media.is_file():
        found = f"a single file, for {len(files)} label files in {path}"
        raise UserError(media, found, "the folder of their media")
    tally = Tally()
    for file in files:
        _check_format(format, file)
    samples = reader.read(files, source, tally)
    report = tally.report(format, path, len(samples))
    if not samples:
        raise _nothing_read(path, report)
    return _with_unique_ids(samples), report


def detect_format(path: Path) -> str:
    """Name of the format of a label file, or of the label files in a folder.

    Raises:
        UserError: no such file, or its format is none or several of those that are known.
    """
    found = [name for name, reader in READERS.items() if _is_of(reader, path)]
    if len(found) == 1:
        return found[0]
    looked_for = "; ".join(f"{name}: {reader.title}" for name, reader in READERS.items())
    if found:
        fix = "name the format of the source as labels: … in the recipe"
        raise UserError(path, f"could be {' or '.join(found)}", "one format", fix)
    other = "" if path.is_dir() else _other_format(read_head(path))
    what = f"looks like {other}" if other else "not a label format that is known"
    raise UserError(path, what, f"one of {looked_for}")


def _is_of(reader: Reader, path: Path) -> bool:
    if not path.is_dir():
        return any(reader.looks_like(read_head(file)) for file in _files(path, reader.pattern))
    return any(reader.looks_like(read_head(file)) for file in _inside(path, reader.pattern))


def _files(path: Path, pattern: str) -> list[Path]:
    """The file, or the files of a folder."""
    if path.is_file():
        if not path.stat().st_size:
            raise UserError(path, "the file is empty", "labels", "export the file again")
        return [path]
    if not path.is_dir():
        raise UserError(path, "no such label file or folder", fix="check path in the recipe")
    files = _inside(path, pattern)
    if not files:
        raise UserError(
            path, f"no {pattern} in this folder", "label files", "check path and labels"
        )
    return files


def _inside(folder: Path, pattern: str) -> list[Path]:
    """Hidden files, such as those that other systems leave behind, are passed over."""
    found = (path for path in folder.glob(pattern) if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _check_format(format: str, file: Path) -> None:
    """Say what a file is that is clearly of another format; else the reader finds the fault."""
    head = read_head(file)
    if READERS[format].looks_like(head):
        return
    others = [name for name, reader in READERS.items() if reader.looks_like(head)]
    what = f"labels: {others[0]}" if others else _other_format(head)
    if what:
        expected = READERS[format].title
        raise UserError(file, f"looks like {what}", expected, "check labels and path in the recipe")


def _other_format(head: str) -> str:
    return next((name for name, sign in _NOT_READ.items() if re.search(sign, head)), "")


def _nothing_read(path: Path, report: ConversionReport) -> UserError:
    findings = (*report.losses, *report.left_out)
    why = "; ".join(str(finding) for finding in findings[:4]) or "the file holds no annotations"
    return UserError(path, "no sample could be read", "at least one", why)


def _with_unique_ids(samples: Iterable[Sample]) -> list[Sample]:
    taken: set[str] = set()
    return [replace(sample, id=unique(sample.id, taken)) for sample in samples]
