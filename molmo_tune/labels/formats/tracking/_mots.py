"""MOTS masks as text or 16-bit images, shared by `kitti_mots` and `mots_challenge`.

KITTI MOTS counts frames from 0 and MOTSChallenge from 1, and no file states which it is. So there
are two formats, and the user names one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.files.text_rows import looks_like_rows, text_rows, whole
from molmo_tune.labels.geometry.frame_masks import (
    last_number_in_name,
    mask_of,
    mask_of_id,
    read_id_image,
)
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import DroppedRowError
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Mask, Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

MakeMask = Callable[[SizeWH], Mask]

CLASSES = ("car", "pedestrian")
IGNORED_CLASS = 10
IGNORED = "id 10000: a region to ignore"
UNKNOWN_CLASS = "a class without a name"
OTHER_FIELDS = "a row of other than 6 fields"
ID_OF_OTHER_CLASS = "the id does not match its class"


def looks_like_mots(head: str) -> bool:
    """Return whether the head of a file looks like MOTS text or a 16-bit gray PNG."""
    is_gray_16 = head[1:4] == "PNG" and head[24:26] == "\x10\x00"
    return is_gray_16 or looks_like_rows(head, r"\d+ \d+ \d+ \d+ \d+ \S+")


def read_mots(files: Sequence[Path], media: MediaSource, tally: Tally, first: int) -> list[Sample]:
    """Return one sample per sequence.

    Args:
        files: text files, or the images of any number of folders.
        media: the video, or the folder of the videos.
        tally: counts every row and image.
        first: number of the first frame.

    Raises:
        UserError: a text file is not text, or a name points outside the media folder.
    """
    groups: dict[Path, list[Path]] = {}
    for file in files:
        if file.suffix.lower() == ".png":
            groups.setdefault(file.parent, []).append(file)
        elif file.name != "labels.txt":
            groups[file] = [file]
    media.check_single_file(len(groups), files[0])
    samples = (_sample(name, group, media, tally, first) for name, group in groups.items())
    return [sample for sample in samples if sample is not None]


def _sample(
    source: Path, files: Sequence[Path], media: MediaSource, tally: Tally, first: int
) -> Sample | None:
    is_text = files == [source]
    name = source.stem if is_text else source.name
    video = open_video(media, (name,), (), str(source), tally)
    objects = VideoObjects(video, tally, str(source))
    if is_text:
        for row in text_rows(source):
            _add_row(row.fields, row.place, first, objects)
        return objects.sample()
    for file in files:
        _add_image(file, _class_names(file), first, objects)
    return objects.sample()


def _add_row(fields: list[str], place: str, first: int, objects: VideoObjects) -> None:
    if len(fields) != 6:
        objects.drop("", "mask", place, OTHER_FIELDS)
        return
    frame, id, number, height, width = map(whole, fields[:5])
    frame = None if frame is None else frame - first
    if number is None or id is None or id // 1000 != number:
        objects.drop("", "mask", place, ID_OF_OTHER_CLASS)
        return
    runs = {"size": [height, width], "counts": fields[5]}
    _add(id, frame, place, CLASSES, lambda size: mask_of(runs, size), objects)


def _add_image(file: Path, names: Sequence[str], first: int, objects: VideoObjects) -> None:
    place, number = str(file), last_number_in_name(file.name)
    try:
        pixels = read_id_image(file)
    except DroppedRowError as lost:
        objects.drop("", "mask image", place, str(lost))
        return
    frame = None if number is None else number - first
    for id in np.unique(pixels[pixels > 0]).tolist():

        def make(size: SizeWH, id: int = id) -> Mask:
            return mask_of_id(pixels, id, size)

        _add(id, frame, f"{place}: id {id}", names, make, objects)


def _add(
    id: int,
    frame: int | None,
    place: str,
    names: Sequence[str],
    make: MakeMask,
    objects: VideoObjects,
) -> None:
    number = id // 1000
    label = names[number - 1] if 1 <= number <= len(names) else ""
    if number == IGNORED_CLASS:
        objects.skip("", "mask", place, IGNORED)
    elif not label:
        objects.drop("", "mask", place, UNKNOWN_CLASS)
    else:
        objects.add(label, "mask", str(id), frame, place, make)


def _class_names(file: Path) -> Sequence[str]:
    names = file.with_name("labels.txt")
    if not names.is_file():
        return CLASSES
    return [line.strip() for line in read_text(names).splitlines()]
