"""Folders of palette images, as in DAVIS and YouTube-VOS: ``Annotations/VIDEO/00005.png``.

    0 0 1 1 0 2        pixels: the object's number, 0 for background, 255 for void

Masks: all pixels with the object's number; the palette's colors are ignored.
Frames: the number in the name is the frame's, from 0. If the video has exactly as many frames as
    there are images, it consists of these frames, and their order counts; this is noted.
Gaps: YouTube-VOS labels every fifth frame. Between labeled frames, masks keep the nearer one (over
    at most 0.25 s) and count as interpolated.
Labels: ``object``, because objects have no class; the format `expressions` reads the same images
    with an expression for each object.
Media: the folder is named like its video.
Skipped: void pixels.
Dropped: images that are not palette or gray.
Exhaustive labels: none.
Source: the readmes of DAVIS 2017 and YouTube-VOS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.labels.formats.video_masks.sav import LABEL, NO_CLASSES
from molmo_tune.labels.geometry.frame_masks import (
    BY_POSITION,
    frame_numbers,
    mask_of_id,
    read_id_image,
)
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import DroppedRowError
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Mask, Sample
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, open_video

Pixels = NDArray[Any]

VOID = 255
IS_VOID = "value 255: void"


@dataclass(frozen=True, slots=True)
class ImageMask:
    """One object in one mask image.

    Args:
        number: the object's pixel value.
        frame_index: 0-based frame of the video; None when unknown.
        place: the image and the object, for the report.
        make: the mask, given the size of the video.
    """

    number: int
    frame_index: int | None
    place: str
    make: Callable[[SizeWH], Mask]


def looks_like_mask_folder(head: str) -> bool:
    """Return whether the head of a file looks like a PNG with a palette."""
    return head[1:4] == "PNG" and head[25:26] == "\x03"


def read_mask_folder(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per folder of images.

    Raises:
        UserError: a name points outside the media folder.
    """
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    media.check_single_file(len(folders), files[0])
    found = (_sample(folder, group, media, tally) for folder, group in folders.items())
    return [sample for sample in found if sample is not None]


def _sample(folder: Path, files: Sequence[Path], media: MediaSource, tally: Tally) -> Sample | None:
    video = open_video(media, (folder.name,), (), str(folder), tally)
    objects = VideoObjects(video, tally, str(folder))
    tally.note(NO_CLASSES, str(folder))
    frames = frames_of(files, video, tally, str(folder))
    for mask in masks_in(files, frames, objects):
        id = str(mask.number)
        objects.add(LABEL, "mask", id, mask.frame_index, mask.place, mask.make)
    return objects.sample(labeled_frames=[frame for frame in frames if frame is not None])


def frames_of(
    files: Sequence[Path], video: OpenVideo | None, tally: Tally, place: str
) -> list[int | None]:
    """Return the 0-based frame of the video that each image labels; None without a video."""
    if video is None:
        return [None] * len(files)
    by_name = frame_numbers([file.name for file in files], -1)
    frames = frame_numbers([file.name for file in files], video.info.num_frames)
    if frames != by_name:
        tally.note(BY_POSITION, place)
    return frames


def masks_in(
    files: Sequence[Path], frames: Sequence[int | None], objects: VideoObjects
) -> Iterable[ImageMask]:
    """Yield the objects in all images; count unusable images and void here."""
    for file, frame in zip(files, frames, strict=True):
        try:
            pixels = read_id_image(file)
        except DroppedRowError as lost:
            objects.drop("", "mask image", str(file), str(lost))
            continue
        for number in np.unique(pixels[pixels > 0]).tolist():

            def make(size: SizeWH, number: int = number, pixels: Pixels = pixels) -> Mask:
                return mask_of_id(pixels, number, size)

            place = f"{file}: object {number}"
            if number == VOID:
                objects.skip("", "mask", place, IS_VOID)
            else:
                yield ImageMask(number, frame, place, make)


READER = Reader(
    read_mask_folder,
    looks_like_mask_folder,
    "**/*.png",
    "DAVIS or YouTube-VOS (folders of palette PNG)",
)
