"""Referring expressions with masks: Ref-YouTube-VOS, Ref-DAVIS and MeViS.

    {"videos": {"0043f083b5": {"frames": ["00000", "00005", …], "expressions": {
        "0": {"exp": "a silver sedan", "obj_id": "1"},            obj_id: pixel value of the masks
        "1": {"exp": "the dogs that leave", "anno_id": [7, 8]}}}}}  anno_id: masks of MeViS

Labels: the expression, with a track for each of its objects.
Masks: palette images in ``Annotations/VIDEO/`` (see the format `mask_folder`), next to the file, up
    to three folders above it or in the media folder; for MeViS, the run lengths in
    ``mask_dict.json`` next to the file, ``{anno_id: [mask or null per frame]}``.
Frames: a name in ``frames`` is the frame's number, from 0. If the video has exactly as many frames
    as names, it consists of these frames, and position counts.
Gaps: between labeled frames, masks keep the nearer one (over at most 0.25 s) and count as
    interpolated.
Media: videos are named like the keys of ``videos``.
Skipped: expressions without an object, as in validation splits; empty masks (object absent).
Dropped: objects without masks.
Exhaustive labels: none.
Source: the readmes of Ref-YouTube-VOS and MeViS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.formats.video_masks.mask_folder import ImageMask, masks_in
from molmo_tune.labels.geometry.frame_masks import EMPTY_MASK, frame_numbers, is_empty, mask_of
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Mask, Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

NO_OBJECT = "the expression names no object (a validation split)"
NO_MASKS = "no masks of this object found"
EMPTY = "an empty expression"

Entry = Mapping[str, Any]


def looks_like_expressions(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return head.lstrip().startswith("{") and '"expressions"' in head and '"exp"' in head


def read_expressions(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video with expressions, in file order.

    Raises:
        UserError: the file is not JSON of this format, or a name points outside the media folder.
    """
    data = read_json(path)
    videos = data.get("videos") if isinstance(data, dict) else None
    if not isinstance(videos, dict) or not all(isinstance(v, dict) for v in videos.values()):
        raise UserError(path, "no videos object", "meta_expressions.json")
    masks = path.with_name("mask_dict.json")
    runs = read_json(masks) if masks.is_file() else {}
    if not isinstance(runs, dict):
        raise UserError(masks, "not an object of lists of masks", "mask_dict.json of MeViS")
    media.check_single_file(len(videos), path)
    found = (_sample(name, entry, runs, path, media, tally) for name, entry in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(
    name: str, entry: Entry, runs: Entry, path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    place = f"{path}: video {name}"
    expressions, names = entry.get("expressions"), entry.get("frames")
    if not isinstance(expressions, dict) or not isinstance(names, list):
        raise UserError(place, "no expressions or no list of frames", "both")
    video = open_video(media, (name,), (), place, tally)
    objects = VideoObjects(video, tally, place)
    count = video.info.num_frames if video else -1
    frames = frame_numbers([str(n) for n in names], count)
    mask_images = _mask_images(name, names, frames, path, media, objects)
    for key, expression in expressions.items():
        expression = expression if isinstance(expression, dict) else {}
        _add(expression, f"{place}, expression {key}", mask_images, runs, frames, objects)
    return objects.sample(labeled_frames=[frame for frame in frames if frame is not None])


def _add(
    expression: Entry,
    place: str,
    mask_images: Mapping[str, Sequence[ImageMask]],
    runs: Entry,
    frames: Sequence[int | None],
    objects: VideoObjects,
) -> None:
    text = expression.get("exp")
    label = " ".join(text.split()) if isinstance(text, str) else ""
    if not label:
        objects.drop("", "expression", place, EMPTY)
        return
    annotations, numbers = _ids(expression.get("anno_id")), _ids(expression.get("obj_id"))
    if not annotations and not numbers:
        objects.skip(label, "expression", place, NO_OBJECT)
    for id in annotations or numbers:
        masks = runs.get(id)
        if isinstance(masks, list):
            _add_runs(label, id, masks, frames, place, objects)
        elif id in mask_images:
            for mask in mask_images[id]:
                objects.add(label, "mask", id, mask.frame_index, mask.place, mask.make)
        else:
            objects.drop(label, "expression", place, NO_MASKS)


def _add_runs(
    label: str,
    id: str,
    masks: Sequence[object],
    frames: Sequence[int | None],
    place: str,
    objects: VideoObjects,
) -> None:
    for number, mask in enumerate(masks):
        where = f"{place}, object {id}, mask {number}"
        if mask is None or is_empty(mask):
            objects.skip(label, "mask", where, EMPTY_MASK, absent=True)
            continue
        frame = frames[number] if number < len(frames) else None

        def make(size: tuple[int, int], mask: object = mask) -> Mask:
            return mask_of(mask, size)

        objects.add(label, "mask", id, frame, where, make)


def _mask_images(
    name: str,
    names: Sequence[object],
    frames: Sequence[int | None],
    path: Path,
    media: MediaSource,
    objects: VideoObjects,
) -> dict[str, list[ImageMask]]:
    """Return the masks in the images of a video, by object."""
    frame_of = {str(n): frame for n, frame in zip(names, frames, strict=True)}
    found: dict[str, list[ImageMask]] = {}
    for folder in _folders(name, path, media):
        files = sorted(folder.glob("*.png"))
        if files:
            where = [frame_of.get(file.stem) for file in files]
            for mask in masks_in(files, where, objects):
                found.setdefault(str(mask.number), []).append(mask)
            break
    return found


def _folders(name: str, path: Path, media: MediaSource) -> Iterable[Path]:
    if Path(name).name != name or name in (".", ".."):
        return
    for base in (path.parent, *list(path.parents)[1:4], media.path):
        yield base / "Annotations" / name
        yield base / name


def _ids(value: object) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [str(id) for id in values if isinstance(id, str | int)]


READER = Reader(
    one_by_one(read_expressions),
    looks_like_expressions,
    "meta_expressions*.json",
    "Ref-YouTube-VOS, Ref-DAVIS or MeViS (JSON with expressions)",
)
