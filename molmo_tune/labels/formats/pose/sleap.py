"""SLEAP projects (``.slp``) and analysis files (``.h5``), read with sleap-io.

    HDF5: videos, skeletons, tracks, and per frame the instances with their points

Points: pixels from 0; a NaN point is not labeled.
Frames: count from 0. Gaps stay gaps.
Labels: the name of the skeleton, or ``animal``. The instances of a track are one object.
Media: videos are named like the project's videos.
Refused: files without frames (sleap-io returns none, without an error, for some files), and files
    that refer to other files: HDF5 can store links and values elsewhere, which would let a label
    file read anything on the disk. SLEAP does not write such links.
Skipped: a model's predictions, in videos that also have labels made by a person.
Dropped: instances without a track, which have no identity.
Exhaustive labels: none.
Source: sleap-io of SLEAP's makers, which the extra ``pose`` installs. It is imported only here; it
    handles the layout and its two axis orders.
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
PREDICTED = "a model's prediction in a video labeled by a person"


def looks_like_sleap(head: str) -> bool:
    """Return whether the head of a file looks like HDF5."""
    return head[1:4] == "HDF"


def read_sleap(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video of the file.

    Raises:
        UserError: sleap-io is not installed, cannot read the file, or finds no frames in it.
    """
    try:
        sleap_io: Any = importlib.import_module("sleap_io")
    except ImportError as error:
        fix = 'uv pip install "molmo-tune[pose]"'
        raise UserError(path, "needs sleap-io, which is not installed", fix=fix) from error
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
    media.check_single_file(len(videos), path)
    found = (_sample(group, path, media, tally) for group in videos.values())
    return [sample for sample in found if sample is not None]


def _refuse_links(path: Path) -> None:
    try:
        h5py: Any = importlib.import_module("h5py")  # a dependency of sleap-io
        with h5py.File(path, "r") as file:
            link = _first_link(file, h5py)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError):
        return  # not valid HDF5, which sleap-io reports
    if link:
        found = f"refers to another file ({link})"
        raise UserError(path, found, "a self-contained SLEAP file")


def _first_link(file: Any, h5py: Any) -> str:
    """Return the name of the first link to, or values in, another file; empty without one."""
    pending = [(file, "")]
    seen = set()
    while pending:
        group, name = pending.pop()
        if (number := h5py.h5o.get_info(group.id).addr) in seen:  # groups can contain themselves
            continue
        seen.add(number)
        for key in group:
            inner = f"{name}/{key}"
            if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
                return inner
            item = group.get(key)
            if isinstance(item, h5py.Group):
                pending.append((item, inner))
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
    """Return the labeled points, in the order of the skeleton."""
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
