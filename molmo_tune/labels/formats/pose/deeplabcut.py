"""DeepLabCut labels as CSV, ``labeled-data/VIDEO/CollectedData_NAME.csv``: named points of animals.

    scorer,     ,     ,       LM,  LM,  LM, …        three header rows; four (individuals) with
    individuals,,,            ant1,ant1,ant2, …      several animals. The image path takes one
    bodyparts,  ,     ,       head,head,head, …      column or three
    coords,     ,     ,       x,   y,   x, …
    labeled-data,clip,img012.png,10.5,4,, …

Points: pixels from 0. An empty pair is a point that was not labeled.
Frames: the number in the image's name is the frame's, from 0. Gaps stay gaps.
Labels: ``animal``, because the file has no class; unique body parts (``single``) are ``single``.
Media: videos are named like the folder of the images.
Refused: files with likelihoods, which are predictions; HDF5 files (save as CSV).
Skipped: animals without a labeled point in a frame; they may be absent or unlabeled.
Exhaustive labels: none.
Source: the documentation of DeepLabCut.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.geometry.frame_masks import last_number_in_name
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import DroppedRowError
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Keypoint, Keypoints, Sample
from molmo_tune.labels.tracks import NOT_A_NUMBER, numbers
from molmo_tune.labels.video_objects import VideoObjects, open_video

Cells = Sequence[tuple[str, list[str]]]

LABEL, SINGLE = "animal", "single"
NOT_LABELED = "no labeled point in this frame"
OTHER_FIELDS = "number of fields differs from the header"


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of a file.

    Args:
        first: first column of coordinates.
        pairs: individual and body part of each pair of columns.
    """

    first: int
    pairs: list[tuple[str, str]]


def looks_like_deeplabcut(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    lines = [line.split(",", 1)[0] for line in head.lstrip().splitlines()[:4]]
    return lines[:1] == ["scorer"] and "bodyparts" in lines and "coords" in lines


def read_deeplabcut(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video of the file.

    Raises:
        UserError: the file is not CSV of this format, or contains predictions.
    """
    try:
        rows = list(csv.reader(read_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise UserError(path, f"not valid CSV ({error})", "CSV of DeepLabCut") from error
    columns, num_header_rows = _columns(rows, path)
    videos: dict[str, list[tuple[str, list[str]]]] = {}
    for number, row in enumerate(rows[num_header_rows:], num_header_rows + 1):
        if row:
            video = _image_path(row, columns).rpartition("/")[0].rpartition("/")[2]
            videos.setdefault(video or path.stem, []).append((f"{path}:{number}", row))
    media.check_single_file(len(videos), path)
    found = (_sample(name, group, columns, path, media, tally) for name, group in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(
    name: str,
    rows: Sequence[tuple[str, list[str]]],
    columns: _Columns,
    path: Path,
    media: MediaSource,
    tally: Tally,
) -> Sample | None:
    place = f"{path}: video {name}"
    objects = VideoObjects(open_video(media, (name,), (), place, tally), tally, place)
    for where, row in rows:
        _add(row, columns, where, objects)
    return objects.sample()


def _add(row: list[str], columns: _Columns, place: str, objects: VideoObjects) -> None:
    if len(row) != columns.first + 2 * len(columns.pairs):
        objects.drop("", "keypoints", place, OTHER_FIELDS)
        return
    frame = last_number_in_name(_image_path(row, columns))
    for individual in dict.fromkeys(name for name, _ in columns.pairs):
        label = SINGLE if individual == SINGLE else LABEL
        cells = [
            (part, row[columns.first + 2 * n : columns.first + 2 * n + 2])
            for n, (name, part) in enumerate(columns.pairs)
            if name == individual
        ]
        labeled = [(part, xy) for part, xy in cells if any(map(_is_labeled, xy))]
        where = f"{place}, {individual}"
        if not labeled:
            objects.skip(label, "keypoints", where, NOT_LABELED, absent=True)
            continue

        def make(_: SizeWH, labeled: Cells = labeled) -> Keypoints:
            return _points(labeled)

        objects.add(label, "keypoints", individual, frame, where, make)


def _points(cells: Cells) -> Keypoints:
    points = []
    for part, texts in cells:
        values = numbers(texts)
        if values is None:
            raise DroppedRowError(NOT_A_NUMBER)
        points.append(Keypoint(part, (values[0], values[1])))
    return Keypoints(tuple(points))


def _is_labeled(text: str) -> bool:
    return text.strip().lower() not in ("", "nan")


def _image_path(row: list[str], columns: _Columns) -> str:
    return "/".join(part.strip().replace("\\", "/") for part in row[: columns.first])


def _columns(rows: Sequence[list[str]], path: Path) -> tuple[_Columns, int]:
    header = {row[0]: row for row in rows[:4] if row}
    parts, coords = header.get("bodyparts"), header.get("coords")
    if parts is None or coords is None or len(parts) != len(coords):
        raise UserError(path, "no header rows bodyparts and coords", "CSV of DeepLabCut")
    if "likelihood" in coords:
        raise UserError(path, "has likelihoods: predictions", "labels made by a person")
    first = next((n for n, word in enumerate(coords) if word == "x"), len(coords))
    animals = header.get("individuals", [LABEL] * len(parts))
    words = coords[first:]
    if not words or words != ["x", "y"] * (len(words) // 2) or len(animals) != len(parts):
        raise UserError(path, "coords are not x, y, x, y, …", "CSV of DeepLabCut")
    pairs = [(animals[n].strip(), parts[n].strip()) for n in range(first, len(parts), 2)]
    return _Columns(first, pairs), 4 if "individuals" in header else 3


READER = Reader(
    one_by_one(read_deeplabcut),
    looks_like_deeplabcut,
    "**/CollectedData_*.csv",
    "DeepLabCut CSV (scorer, bodyparts, coords)",
)
