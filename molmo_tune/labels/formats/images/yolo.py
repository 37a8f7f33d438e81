"""YOLO: a folder of text files, one per image, with a row per object.

    class xc yc width height                          box by its center
    class x1 y1 x2 y2 x3 y3 …                         polygon; with four corners also a rotated box
    class xc yc width height (x y [v]) × K            box with K named points (pose)

Shapes: fractions of the image's width and height. A row does not state its shape: five fields are a
    box; more are a pose if ``data.yaml`` has ``kpt_shape: [K, 2 or 3]``, else a polygon. One file
    can mix shapes.
Classes: ``names`` in ``data.yaml``, or ``obj.names`` or ``classes.txt``, in the folder or up to
    three above. Splits and paths in those files are not read, because they often belong to another
    machine: pass the folder of one split's text files.
Media: images are named like the text files. By default they are in the folder with ``images`` in
    place of ``labels`` in its path, as in Ultralytics, else next to the texts.
Skipped: images without a text file (unannotated, not negative) or with an empty one.
Dropped: six fields, a box with a confidence or a track id; class numbers without a name.
Exhaustive labels: none.
Source: the dataset documentation of Ultralytics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import (
    NEGATIVE,
    DroppedRowError,
    MakeShape,
    corners_of,
    open_objects,
    spelled,
)
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Polygon, Sample, Shape
from molmo_tune.recipe.yaml_lines import read_yaml

_READ_KEYS = ("names", "kpt_shape", "kpt_names")
CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "obj.names", "classes.txt")
UNKNOWN_CLASS = "a class number without a name"
SIX_FIELDS = "six fields: a confidence or a track id, which is ambiguous"
OTHER_FIELDS = "number of fields matches no box, polygon or named points"
NO_LABEL_FILE = "no label file: unannotated, not a negative image"
COMMENT = "a line with # is ignored"


@dataclass(frozen=True, slots=True)
class _Classes:
    """Classes and named points of a dataset.

    Args:
        names: class names by number.
        keypoints: names of the points of a pose.
        per_keypoint: numbers per point, 2 or 3.
    """

    names: dict[int, str]
    keypoints: tuple[str, ...] = ()
    per_keypoint: int = 0


def looks_like_yolo(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    rows = [line.split() for line in head.splitlines()[:5] if line[:1] != "#" and line.strip()]
    number = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")
    return bool(rows) and all(
        len(row) >= 5 and row[0].isdecimal() and all(number.fullmatch(v) for v in row)
        for row in rows
    )


def read_yolo(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per text file with objects.

    Raises:
        UserError: there are no class names, or a file is not text.
    """
    files = [file for file in files if file.name not in CLASS_FILES]
    if not files:
        raise UserError(media.path, "no label files", "a folder of YOLO's txt files")
    classes = find_classes(files[0].parent)
    media = media if media.given else MediaSource(image_folder(files[0].parent), given=False)
    media.check_single_file(len(files), files[0].parent)
    found = [_sample(file, classes, media, tally) for file in files]
    _skip_unlabeled(files, media, tally)
    return [sample for sample in found if sample is not None]


def image_folder(folder: Path) -> Path:
    """Return Ultralytics' image folder: ``…/labels/train`` → ``…/images/train`` if it exists."""
    parts = list(folder.resolve().parts)
    for at in range(len(parts) - 1, 0, -1):
        if parts[at] in ("labels", "labelTxt"):
            images = Path(*parts[:at], "images", *parts[at + 1 :])
            return images if images.is_dir() else folder
    return folder


def find_classes(folder: Path) -> _Classes:
    """Return the classes from a file in the folder or up to three folders above.

    Raises:
        UserError: there is no such file, or it has no names.
    """
    for place in [folder, *folder.resolve().parents][:4]:
        for name in CLASS_FILES:
            if (place / name).is_file():
                return _read_classes(place / name)
    listed = ", ".join(CLASS_FILES)
    raise UserError(folder, "no class names", f"one of {listed} here or up to three folders above")


def _read_classes(path: Path) -> _Classes:
    text = read_text(path)
    if path.suffix not in (".yaml", ".yml"):
        return _Classes(dict(enumerate(line.strip() for line in text.strip().splitlines())))
    reading = read_yaml(text)
    for fault in reading.faults:  # other keys, such as a download script, are not read
        if fault.path[:1] in ((), *((key,) for key in _READ_KEYS)):
            where = path if not fault.path else f"{path}:{fault.line}"
            raise UserError(where, f"not valid YAML ({fault.reason})", "names of the classes")
    data: Any = reading.value
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not all(map(_is_class, names.items())):
        raise UserError(path, "no list of names", "names: [first, second, …]")
    keypoints, per_keypoint = _keypoint_names(data, path)
    by_number = {int(number): str(name).strip() for number, name in names.items()}
    return _Classes(by_number, keypoints, per_keypoint)


def _is_class(entry: tuple[str, object]) -> bool:
    number, name = entry
    return number.isdecimal() and len(number) < 10 and isinstance(name, str | int | float)


def _keypoint_names(data: dict[str, Any], path: Path) -> tuple[tuple[str, ...], int]:
    """Return the names of a pose's points, by default numbers from 1, and numbers per point.

    ``kpt_names`` is a list per class; poses of several classes share their points.
    """
    shape = data.get("kpt_shape")
    if shape is None:
        return (), 0
    is_pair = isinstance(shape, list) and len(shape) == 2
    if not is_pair or not all(type(v) is int for v in shape) or shape[1] not in (2, 3):
        raise UserError(path, f"kpt_shape is {shape}", "[number of points, 2 or 3]")
    count = shape[0]
    if not 0 < count < 10_000:
        raise UserError(path, f"kpt_shape is {shape}", "[number of points, 2 or 3]")
    names = data.get("kpt_names")
    first = next(iter(names.values()), None) if isinstance(names, dict) else names
    if isinstance(first, list) and len(first) == count:
        return tuple(map(str, first)), shape[1]
    return tuple(str(number + 1) for number in range(count)), shape[1]


def _sample(path: Path, classes: _Classes, media: MediaSource, tally: Tally) -> Sample | None:
    names = [path.stem + suffix for suffix in IMAGE_SUFFIXES]
    objects = open_objects(media, names, str(path), None, tally)
    text = read_text(path) if path.stat().st_size else ""
    for number, line in enumerate(text.splitlines(), 1):
        place, fields = f"{path}:{number}", line.split()
        if line.lstrip().startswith("#"):
            tally.note(COMMENT, place)
        elif fields:
            label = _label(fields[0], classes)
            if label is None:
                objects.drop("", _kind(fields, classes), place, UNKNOWN_CLASS)
            else:
                objects.add(label, _kind(fields, classes), place, _maker(fields, classes))
    return objects.sample()


def _maker(fields: list[str], classes: _Classes) -> MakeShape:
    return lambda size_wh: _shape(fields, classes, size_wh)


def _label(text: str, classes: _Classes) -> str | None:
    """Return the name of a class number, which some tools write as ``0.0``."""
    number = re.fullmatch(r"(\d{1,9})(\.0*)?", text)
    return classes.names.get(int(number[1])) if number else None


def _kind(fields: list[str], classes: _Classes) -> str:
    if len(fields) <= 6:
        return "box"
    return "keypoints" if classes.keypoints else "polygon"


def _shape(fields: list[str], classes: _Classes, size_wh: SizeWH) -> Shape:
    values = spelled(fields[1:])
    if len(values) == 5:
        raise DroppedRowError(SIX_FIELDS)
    num_points = len(classes.keypoints)
    if len(values) == 4:
        return _box(values, size_wh)
    if num_points and len(values) == 4 + num_points * classes.per_keypoint:
        points = _keypoints(values[4:], classes, size_wh)
        return Keypoints(points, _box(values[:4], size_wh)) if points else _box(values, size_wh)
    if num_points or len(values) % 2 or len(values) < 4:
        raise DroppedRowError(OTHER_FIELDS)
    width, height = size_wh
    return Polygon((tuple((x * width, y * height) for x, y in corners_of(values)),))


def _box(values: list[float], size_wh: SizeWH) -> Box:
    x, y, width, height = values[:4]
    if width < 0 or height < 0:
        raise DroppedRowError(NEGATIVE)
    left, top = (x - width / 2) * size_wh[0], (y - height / 2) * size_wh[1]
    return Box((left, top, left + width * size_wh[0], top + height * size_wh[1]))


def _keypoints(values: list[float], classes: _Classes, size_wh: SizeWH) -> tuple[Keypoint, ...]:
    """Return the labeled points: ``v`` above 0 or, without ``v``, neither (0, 0) nor negative."""
    step, points = classes.per_keypoint, []
    for number, name in enumerate(classes.keypoints):
        x, y, *v = values[number * step : (number + 1) * step]
        is_labeled = v[0] > 0 if v else (x, y) != (0, 0) and min(x, y) >= 0
        if is_labeled:
            points.append(Keypoint(name, (x * size_wh[0], y * size_wh[1]), not v or v[0] >= 2))
    return tuple(points)


def _skip_unlabeled(files: Sequence[Path], media: MediaSource, tally: Tally) -> None:
    """Count images without a text file as skipped."""
    labeled = {file.stem for file in files}
    for image in media.images():
        if image.stem not in labeled:
            counts = tally.of("", "image")
            counts.read()
            counts.skip(NO_LABEL_FILE, str(image))


READER = Reader(
    read_yolo, looks_like_yolo, "*.txt", "YOLO (a folder of txt files: class and fractions)"
)
