"""Folders of palette pictures, as of DAVIS and YouTube-VOS: ``Annotations/VIDEO/00005.png``.

The value of a pixel is the object's number, 0 is background and 255 void, which is left out. The
folder's name is the video's. The objects have no class: all are called ``object``, and nothing is
exhaustive; `formats.video_masks.expressions` reads the same pictures with words for the objects.

The name of a picture is its frame's number, from 0. If the video has exactly as many frames as
there are pictures, it was made of them, and their order counts. YouTube-VOS labels every fifth
frame; what happens between is filled as `geometry.interpolation` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.labels.formats.video_masks.sav import LABEL, NO_CLASSES
from molmo_tune.labels.geometry.frame_masks import BY_POSITION, frame_numbers, mask_at, numbers_in
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import LostError
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Mask, Sample
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, open_video

Pixels = NDArray[Any]

VOID = 255
IS_VOID = "value 255: void"


@dataclass(frozen=True, slots=True)
class Seen:
    """One object in one picture."""

    number: int
    frame_index: int | None
    place: str
    make: Callable[[SizeWH], Mask]


def looks_like_mask_folder(head: str) -> bool:
    """Whether this is the beginning of a PNG with a palette."""
    return head[1:4] == "PNG" and head[25:26] == "\x03"


def read_mask_folder(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per folder of pictures.

    Raises:
        UserError: a name climbs out of the media folder.
    """
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    media.check_number(len(folders), files[0])
    found = (_sample(folder, group, media, tally) for folder, group in folders.items())
    return [sample for sample in found if sample is not None]


def _sample(folder: Path, files: Sequence[Path], media: MediaSource, tally: Tally) -> Sample | None:
    video = open_video(media, (folder.name,), (), str(folder), tally)
    objects = VideoObjects(video, tally, str(folder))
    tally.note(NO_CLASSES, str(folder))
    frames = frames_of(files, video, tally, str(folder))
    for seen in objects_in(files, frames, objects):
        id = str(seen.number)
        objects.add(LABEL, "mask", id, seen.frame_index, seen.place, seen.make)
    return objects.sample(labeled_frames=[frame for frame in frames if frame is not None])


def frames_of(
    files: Sequence[Path], video: OpenVideo | None, tally: Tally, place: str
) -> list[int | None]:
    """The frame of the video that each picture stands for."""
    if video is None:
        return [None] * len(files)
    by_name = frame_numbers([file.name for file in files], -1)
    frames = frame_numbers([file.name for file in files], video.info.num_frames)
    if frames != by_name:
        tally.note(BY_POSITION, place)
    return frames


def objects_in(
    files: Sequence[Path], frames: Sequence[int | None], objects: VideoObjects
) -> Iterable[Seen]:
    """All objects of all pictures; pictures that are none, and void, are counted here."""
    for file, frame in zip(files, frames, strict=True):
        try:
            pixels = numbers_in(file)
        except LostError as lost:
            objects.drop("", "picture", str(file), str(lost))
            continue
        for number in np.unique(pixels[pixels > 0]).tolist():

            def make(size: SizeWH, number: int = number, pixels: Pixels = pixels) -> Mask:
                return mask_at(pixels, number, size)

            place = f"{file}: object {number}"
            if number == VOID:
                objects.skip("", "mask", place, IS_VOID)
            else:
                yield Seen(number, frame, place, make)


READER = Reader(
    read_mask_folder,
    looks_like_mask_folder,
    "**/*.png",
    "DAVIS or YouTube-VOS (folders of palette PNG)",
)
