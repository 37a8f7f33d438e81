"""SLEAP projects (``.slp``) and analysis files (``.h5``), by way of sleap-io.

The files are HDF5 with a layout of their own, in two axis orders, so they are read by their makers'
library, which the extra ``pose`` installs and which is imported here only. Points are pixels from
0, frames count from 0, a point that is NaN is not labelled. Instances of a track are one object;
those without one are dropped, as are predictions of a model beside labels of a person: they are
left out. The class is the skeleton's name, or ``animal``. sleap-io returns no frames and no error
for some files; a file without any is an error here. Nothing is exhaustive.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.deeplabcut import LABEL
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
    try:
        labels = sleap_io.load_file(str(path))
        frames = list(labels.labeled_frames)
    except Exception as error:
        raise UserError(path, f"sleap-io cannot read it ({error})", "a SLEAP file") from error
    if not frames:
        raise UserError(path, "sleap-io finds no frames in it", "labelled frames")
    videos: dict[int, list[Any]] = {}
    for frame in frames:
        videos.setdefault(id(frame.video), []).append(frame)
    media.check_number(len(videos), path)
    found = (_sample(group, path, media, tally) for group in videos.values())
    return [sample for sample in found if sample is not None]


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
        objects.leave_out(label, "keypoints", place, PREDICTED)
    elif instance.track is None:
        objects.drop(label, "keypoints", place, NO_TRACK)
    else:
        shape = _points(instance)
        id = str(instance.track.name)
        objects.add(label, "keypoints", id, frame, place, lambda _: shape)


def _points(instance: Any) -> Keypoints:
    """The labelled points, in the order of the skeleton."""
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
