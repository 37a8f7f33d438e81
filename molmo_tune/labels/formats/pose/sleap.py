"""SLEAP projects (``.slp``) and analysis files (``.h5``), by way of sleap-io.

The files are HDF5 with a layout of their own, in two axis orders, so they are read by their makers'
library, which the extra ``pose`` installs and which is imported here only. Points are pixels from
0, frames count from 0, a point that is NaN is not labeled. Instances of a track are one object;
those without one are dropped, as are predictions of a model beside labels of a person: they are
left out. The class is the skeleton's name, or ``animal``. sleap-io returns no frames and no error
for some files; a file without any is an error here. Nothing is exhaustive.

HDF5 can link to other files, and keep values in them: with such a link a label file could read what
else is on the disk. SLEAP writes none, so a file with one is refused before it is read.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.formats.pose.deeplabcut import LABEL
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Keypoint, Keypoints, Sample
from molmo_tune.labels.tracks import numbers
from molmo_tune.labels.video_objects import VideoObjects, open_video

NO_TRACK = "an instance without a track has no identity"
PREDICTED = "a model's prediction beside labels of a person"


def looks_like_sleap(head: str) -> bool:
    """Whether this is the beginning of an HDF5 file."""
    return head[1:4] == "HDF"


def read_sleap(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per video of the file.

    Raises:
        UserError: sleap-io is missing, or cannot read the file, or finds nothing in it.
    """
    try:
        sleap_io: Any = importlib.import_module("sleap_io")
    except ImportError as error:
        fix = 'uv pip install "molmo-tune[pose]"'
        raise UserError(path, "SLEAP files need sleap-io, which is missing", fix=fix) from error
    _refuse_links(path)
    try:
        labels = sleap_io.load_file(str(path))
        frames = list(labels.labeled_frames)
    except Exception as error:
        raise UserError(path, f"sleap-io cannot read it ({error})", "a SLEAP file") from error
    if not frames:
        raise UserError(path, "sleap-io finds no frames in it", "labeled frames")
    videos: dict[int, list[Any]] = {}
    for frame in frames:
        videos.setdefault(id(frame.video), []).append(frame)
    media.check_number(len(videos), path)
    found = (_sample(group, path, media, tally) for group in videos.values())
    return [sample for sample in found if sample is not None]


def _refuse_links(path: Path) -> None:
    try:
        h5py: Any = importlib.import_module("h5py")  # which sleap-io needs
        with h5py.File(path, "r") as file:
            link = _first_link(file, h5py)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError):
        return  # not HDF5 that opens, as sleap-io will say
    if link:
        found = f"points to another file ({link})"
        raise UserError(path, found, "a SLEAP file, which holds all it says")


def _first_link(file: Any, h5py: Any) -> str:
    """The name of a link to another file, or of values that lie in one; empty without."""
    todo = [(file, "")]
    seen = set()
    while todo:
        group, name = todo.pop()
        if (number := h5py.h5o.get_info(group.id).addr) in seen:  # groups can hold themselves
            continue
        seen.add(number)
        for key in group:
            inner = f"{name}/{key}"
            if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
                return inner
            item = group.get(key)
            if isinstance(item, h5py.Group):
                todo.append((item, inner))
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                return inner
    return ""


def _sample(frames: list[Any], path: Path, media: MediaSource, tally: Tally) -> Sample | None:
    listed = frames[0].video.filename
    name = Path(str(listed[0] if isinstance(listed, list) else listed).replace("\\", "/")).name
    place = f"{path}: video {name}"
    objects = VideoObjects(open_video(media, (name,), (), place, tally), tally, place)
    by_person = any(not _is_predicted(i) for frame in frames for i in frame.instances)
    for frame in frames:
        for instance in frame.instances:
            where = f"{place}, frame {frame.frame_idx}"
            _add(instance, int(frame.frame_idx), by_person, where, objects)
    return objects.sample()


def _add(instance: Any, frame: int, by_person: bool, place: str, objects: VideoObjects) -> None:
    label = str(getattr(instance.skeleton, "name", "") or LABEL)
    if by_person and _is_predicted(instance):
        objects.skip(label, "keypoints", place, PREDICTED)
    elif instance.track is None:
        objects.drop(label, "keypoints", place, NO_TRACK)
    else:
        shape = _points(instance)
        id = str(instance.track.name)
        objects.add(label, "keypoints", id, frame, place, lambda _: shape)


def _points(instance: Any) -> Keypoints:
    """The labeled points, in the order of the skeleton."""
    pairs = zip(instance.skeleton.node_names, instance.numpy().tolist(), strict=True)
    known = ((str(name), numbers(xy)) for name, xy in pairs)
    return Keypoints(tuple(Keypoint(name, (xy[0], xy[1])) for name, xy in known if xy))


def _is_predicted(instance: Any) -> bool:
    return type(instance).__name__ == "PredictedInstance"


READER = Reader(
    one_by_one(read_sleap),
    looks_like_sleap,
    "*.[sh][l5]*",
    "SLEAP (.slp or .h5, with the extra pose)",
)
