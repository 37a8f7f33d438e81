"""molmo-tune's own label file: one `Sample` per line, nothing lost, nothing guessed.

Every line is a JSON object in UTF-8. Keys in brackets may be left out.

    sample        format              always "molmo-tune/1"
                  id                  text, unique in the file
                  media               object, below
                  [annotations]       list of tracks, instances, spans and dialogues
                  [exhaustive_labels] list of texts: every visible object of these was annotated
    media         kind                "image", "video" or "text"
                  [paths]             list of texts: one video, one or more images, none for text
                  [size_wh]           [width, height], whole pixels of the upright frame
                  [duration_s]        seconds
    track         kind "track", id, label, observations
    observation   time_s              seconds from the first frame
                  a shape             point, box, polygon, mask or keypoints in pixels of the frame,
                                      as in `molmo_tune.labels.shape_record`
                  [frame_index]       whole number from 0, in presentation order; -1 is unknown
                  [occluded]          true or false
                  [interpolated]      true or false
    instance      kind "instance", id, label, a shape, [image_index] from 0
    span          kind "span", label, start_s and end_s: seconds from the first frame, videos only
    dialogue      kind "dialogue", answer
                  question            text, empty for a caption: the template asks for it
                  [style]             text, "user_qa" when left out
                  [options]           2 to 26 different texts (multiple choice); the answer is then
                                      the text of one of them, or its letter: A for the first

Pixels have their origin top left. An unknown key, ``NaN``, a missing key and a wrong type are all
errors that name the line. Paths are kept as they were written: absolute, or relative to the working
directory. `read_jsonl` does not look at the media; `read_labels` does, and where a media folder is
given looks the paths up in that folder only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from molmo_tune.atomic_files import atomic_file
from molmo_tune.errors import UserError
from molmo_tune.labels.files.strict_json import parse_strictly
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.geometry.shapes import kind_of
from molmo_tune.labels.media_source import MediaSource, MissingMediaError
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.record import format_record, parse_record
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Annotation, Dialogue, Instance, MediaKind, Sample, Span

MISSING_MEDIA = "the medium is missing"


def looks_like_jsonl(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return bool(re.match(r'\s*\{[^\n]*"format"\s*:\s*"molmo-tune/', head))


def write_jsonl(
    samples: Iterable[Sample], path: Path, accept: Callable[[int], None] = lambda _: None
) -> int:
    """Write samples in order, one at a time; the file appears whole or not at all.

    Args:
        samples: are taken as they come, never all held.
        path: of the file.
        accept: asked with their number when all are written; if it raises, there is no file.

    Returns:
        The number of samples.

    Raises:
        UserError: there are no samples, two have the same id, a number is not finite, or the place
            cannot be written to.
    """
    taken: set[str] = set()
    with atomic_file(path) as part:
        # a half of a surrogate pair is not UTF-8 and becomes its JSON escape
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            for sample in samples:
                if sample.id in taken:
                    raise UserError(
                        path, f"several samples have the id {sample.id!r}", "unique ids"
                    )
                taken.add(sample.id)
                file.write(_line(sample))
        if not taken:
            raise UserError(path, "no samples to write", "at least one")
        accept(len(taken))
    return len(taken)


def read_jsonl(path: Path) -> list[Sample]:
    """The samples of a file as they were written.

    Raises:
        UserError: the file is empty or no text, or a line is not a sample.
    """
    samples: list[Sample] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        sample = parse_record(parse_strictly(line, where), where)
        if sample.id in line_of:
            found = f"the id {sample.id!r} is also that of line {line_of[sample.id]}"
            raise UserError(where, found, "unique ids")
        line_of[sample.id] = number
        samples.append(sample)
    return samples


def read_jsonl_source(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The samples of a file whose media are there; the others are dropped and counted.

    Args:
        path: the JSONL file.
        media: if given by the user, the folder in which the paths are looked up.
        tally: counts samples (by kind of medium) and their annotations.

    Raises:
        UserError: see `read_jsonl`; or a path climbs out of the media folder.
    """
    samples = read_jsonl(path)
    if media.given:
        media.check_number(sum(len(sample.media.paths) for sample in samples), path)
    kept = []
    for sample in samples:
        counts = tally.of("", sample.media.kind)
        counts.read()
        where = f"{path}: sample {sample.id}"
        try:
            kind = sample.media.kind
            paths = tuple(_found(p, kind, media, where) for p in sample.media.paths)
        except MissingMediaError as error:
            counts.drop(f"{MISSING_MEDIA} ({error.found})", where)
            _count(sample, tally, lost_at=where)
            continue
        counts.keep()
        _count(sample, tally)
        kept.append(replace(sample, media=replace(sample.media, paths=paths)))
    return kept


def _found(path: Path, kind: MediaKind, media: MediaSource, where: str) -> Path:
    if media.given and kind == "video":
        return media.find_video(path.as_posix(), where)
    if media.given:
        return media.find(path.as_posix(), where)
    if not path.is_file() and not (kind == "video" and path.is_dir()):
        raise MissingMediaError(where, f"no such file {str(path)!r}")
    return path


def _count(sample: Sample, tally: Tally, lost_at: str = "") -> None:
    for annotation in sample.annotations:
        for label, kind in _rows(annotation):
            counts = tally.of(label, kind)
            counts.read()
            if lost_at:
                counts.drop(MISSING_MEDIA, lost_at)
            else:
                counts.keep()


def _rows(annotation: Annotation) -> Iterable[tuple[str, str]]:
    if isinstance(annotation, Dialogue):
        return [("", "dialogue")]
    if isinstance(annotation, Span):
        return [(annotation.label, "span")]
    if isinstance(annotation, Instance):
        return [(annotation.label, kind_of(annotation.shape))]
    return [(annotation.label, kind_of(o.shape)) for o in annotation.observations]


def _line(sample: Sample) -> str:
    try:
        text = json.dumps(format_record(sample), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        where = f"sample {sample.id}"
        raise UserError(where, "a number is not finite", "finite numbers") from error
    return text + "\n"


READER = Reader(
    one_by_one(read_jsonl_source),
    looks_like_jsonl,
    "*.jsonl",
    "molmo-tune JSONL (lines with molmo-tune/1)",
)
