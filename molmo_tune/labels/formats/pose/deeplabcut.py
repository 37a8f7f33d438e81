"""DeepLabCut's labels as CSV, ``labeled-data/VIDEO/CollectedData_NAME.csv``: named points.

    scorer,     ,     ,       LM,  LM,  LM, …        three rows of headings, four with several
    individuals,,,            ant1,ant1,ant2, …      animals; the picture is one column or three
    bodyparts,  ,     ,       head,head,head, …
    coords,     ,     ,       x,   y,   x, …
    labeled-data,clip,img012.png,10.5,4,, …

Pixels count from 0. The folder of the picture names the video, the number in its name the frame,
from 0. An empty pair is a point that was not labeled; an animal without any is not there, or was
not looked for, and left out. Every animal is called ``animal``, as the file has no class; unique
body parts (``single``) are called by that word. Only some frames are labeled and nothing is filled
in. Files with a likelihood are predictions and are refused, as are HDF5 files: save as CSV.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.geometry.frame_masks import number_in_name
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import LostError
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Keypoint, Keypoints, Sample
from molmo_tune.labels.tracks import NOT_A_NUMBER, numbers
from molmo_tune.labels.video_objects import VideoObjects, open_video

Cells = Sequence[tuple[str, list[str]]]

LABEL, SINGLE = "animal", "single"
NOT_LABELED = "no point of it is labeled in this frame"
OTHER_FIELDS = "a row with another number of fields than the headings"


@dataclass(frozen=True, slots=True)
class _Columns:
    """First column of numbers, and per pair of columns its individual and body part."""

    first: int
    pairs: list[tuple[str, str]]


def looks_like_deeplabcut(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    lines = [line.split(",", 1)[0] for line in head.lstrip().splitlines()[:4]]
    return lines[:1] == ["scorer"] and "bodyparts" in lines and "coords" in lines


def read_deeplabcut(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per video of the file.

    Raises:
        UserError: the file is not such CSV, or holds predictions.
    """
    try:
        rows = list(csv.reader(read_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise UserError(path, f"not CSV ({error})", "DeepLabCut's CSV") from error
    columns, num_headings = _columns(rows, path)
    videos: dict[str, list[tuple[str, list[str]]]] = {}
    for number, row in enumerate(rows[num_headings:], num_headings + 1):
        if row:
            video = _picture(row, columns).rpartition("/")[0].rpartition("/")[2]
            videos.setdefault(video or path.stem, []).append((f"{path}:{number}", row))
    media.check_number(len(videos), path)
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
    frame = number_in_name(_picture(row, columns))
    for individual in dict.fromkeys(name for name, _ in columns.pairs):
        label = SINGLE if individual == SINGLE else LABEL
        cells = [
            (part, row[columns.first + 2 * n : columns.first + 2 * n + 2])
            for n, (name, part) in enumerate(columns.pairs)
            if name == individual
        ]
        known = [(part, xy) for part, xy in cells if any(map(_is_set, xy))]
        where = f"{place}, {individual}"
        if not known:
            objects.skip(label, "keypoints", where, NOT_LABELED, absent=True)
            continue

        def make(_: SizeWH, known: Cells = known) -> Keypoints:
            return _points(known)

        objects.add(label, "keypoints", individual, frame, where, make)


def _points(cells: Cells) -> Keypoints:
    points = []
    for part, texts in cells:
        values = numbers(texts)
        if values is None:
            raise LostError(NOT_A_NUMBER)
        points.append(Keypoint(part, (values[0], values[1])))
    return Keypoints(tuple(points))


def _is_set(text: str) -> bool:
    return text.strip().lower() not in ("", "nan")


def _picture(row: list[str], columns: _Columns) -> str:
    return "/".join(part.strip().replace("\\", "/") for part in row[: columns.first])


def _columns(rows: Sequence[list[str]], path: Path) -> tuple[_Columns, int]:
    headings = {row[0]: row for row in rows[:4] if row}
    parts, coords = headings.get("bodyparts"), headings.get("coords")
    if parts is None or coords is None or len(parts) != len(coords):
        raise UserError(path, "no headings bodyparts and coords", "DeepLabCut's CSV")
    if "likelihood" in coords:
        raise UserError(path, "has likelihoods: a model's predictions", "labels of a person")
    first = next((n for n, word in enumerate(coords) if word == "x"), len(coords))
    animals = headings.get("individuals", [LABEL] * len(parts))
    words = coords[first:]
    if not words or words != ["x", "y"] * (len(words) // 2) or len(animals) != len(parts):
        raise UserError(path, "coords are not x, y, x, y, …", "DeepLabCut's CSV")
    pairs = [(animals[n].strip(), parts[n].strip()) for n in range(first, len(parts), 2)]
    return _Columns(first, pairs), 4 if "individuals" in headings else 3


READER = Reader(
    one_by_one(read_deeplabcut),
    looks_like_deeplabcut,
    "**/CollectedData_*.csv",
    "DeepLabCut CSV (scorer, bodyparts, coords)",
)
