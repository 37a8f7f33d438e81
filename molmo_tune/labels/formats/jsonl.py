"""molmo-tune's own label file: one `Sample` per line, kept as written.

Every line is a JSON object in UTF-8. Keys in brackets are optional.

    sample        format              always "molmo-tune/1"
                  id                  text, unique in the file
                  media               object, below
                  [annotations]       list of tracks, instances, spans and dialogues
                  [exhaustive_labels] list of texts: labels whose visible objects are all annotated
    media         kind                "image", "video" or "text"
                  [paths]             list of texts: one video, one or more images, none for text
                  [size_wh]           [width, height], integers, of the upright frame in pixels
                  [duration_s]        seconds
    track         kind "track", id, label, observations
    observation   time_s              seconds from the first frame
                  a shape             below, in pixels of the frame
                  [frame_index]       integer from 0, in presentation order; -1 means unknown
                  [occluded]          true or false
                  [interpolated]      true or false
    instance      kind "instance", id, label, a shape, [image_index] from 0
    span          kind "span", label, start_s and end_s: seconds from the first frame, videos only
    shape         point               [x, y]
     (one of)     box                 [left, top, right, bottom]
                  polygon             list of parts, each a list of at least three [x, y]
                  mask                {"counts": COCO's compressed run lengths, "size_hw":
                                      [height, width]}, which must cover the image exactly
                  keypoints           list of {"name": text, "xy": [x, y], ["visible": false]}, with
                                      an optional box, polygon or mask as the object's extent
    dialogue      kind "dialogue", answer
                  question            text, empty for a caption: the template supplies it
                  [style]             text, default "user_qa"
                  [options]           2 to 26 distinct texts (multiple choice); the answer is then
                                      the text of one of them, or its letter: A for the first

Coordinates: pixels, origin at the top left.
Media: paths are kept as written, absolute or relative to the working directory. `read_labels`
    checks that they exist and, if a media folder is given, looks them up in that folder only;
    `read_jsonl` does not look at the media.
Dropped: samples with missing media.
Exhaustive labels: as listed in `exhaustive_labels`.
Errors: an unknown key, ``NaN``, a missing key and a wrong type are errors that name the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from molmo_tune.atomic_files import atomic_file
from molmo_tune.errors import UserError
from molmo_tune.labels.files.strict_json import parse_strict_json
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.geometry.shapes import kind_of
from molmo_tune.labels.media_source import MediaSource, MissingMediaError
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.record import format_record, parse_record
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Annotation, Dialogue, Instance, MediaKind, Sample, Span

MISSING_MEDIA = "media missing"


def looks_like_jsonl(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    return bool(re.match(r'\s*\{[^\n]*"format"\s*:\s*"molmo-tune/', head))


def write_jsonl(
    samples: Iterable[Sample], path: Path, accept: Callable[[int], None] = lambda _: None
) -> int:
    """Write samples in order, one at a time; the file appears complete or not at all.

    Args:
        samples: samples to write; they are never all in memory.
        path: path of the file.
        accept: called with the number of samples before the file appears; it can raise to stop.

    Returns:
        The number of samples.

    Raises:
        UserError: there are no samples, two have the same id, a number is not finite, or the file
            cannot be written.
    """
    ids: set[str] = set()
    with atomic_file(path) as part:
        # an unpaired surrogate is not UTF-8 and is written as its JSON escape
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            for sample in samples:
                if sample.id in ids:
                    raise UserError(
                        path, f"several samples have the id {sample.id!r}", "unique ids"
                    )
                ids.add(sample.id)
                file.write(_line(sample))
        if not ids:
            raise UserError(path, "no samples to write", "at least one")
        accept(len(ids))
    return len(ids)


def read_jsonl(path: Path) -> list[Sample]:
    """Return the samples of a file as written.

    Raises:
        UserError: the file is empty or not text, or a line is not a sample.
    """
    samples: list[Sample] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        sample = parse_record(parse_strict_json(line, where), where)
        if sample.id in line_of:
            found = f"id {sample.id!r} is also used in line {line_of[sample.id]}"
            raise UserError(where, found, "unique ids")
        line_of[sample.id] = number
        samples.append(sample)
    return samples


def read_jsonl_source(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the samples of a file whose media exist; the others are dropped and counted.

    Args:
        path: the JSONL file.
        media: folder in which the paths are looked up, if given by the user.
        tally: counts samples (by kind of media) and their annotations.

    Raises:
        UserError: see `read_jsonl`; or a path points outside the media folder.
    """
    samples = read_jsonl(path)
    if media.given:
        media.check_single_file(sum(len(sample.media.paths) for sample in samples), path)
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
            _count(sample, tally, dropped_at=where)
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


def _count(sample: Sample, tally: Tally, dropped_at: str = "") -> None:
    for annotation in sample.annotations:
        for label, kind in _rows(annotation):
            counts = tally.of(label, kind)
            counts.read()
            if dropped_at:
                counts.drop(MISSING_MEDIA, dropped_at)
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
