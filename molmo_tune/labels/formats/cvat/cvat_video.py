"""CVAT for video 1.1: one XML file, tracks with a row per frame.

    <track id="0" label="car" task_id="5">
      <box frame="10" outside="0" occluded="1" keyframe="1" xtl="3" ytl="4" xbr="10" ybr="5"/>
      <box frame="13" outside="1" …/>          the object has gone; the coordinates mean nothing

``frame`` is the 0-based index in the *original* video, also where the task shows only every n-th
frame; the frames between two rows are then filled in. Coordinates are pixels of the original video,
0-based. The file has no frame rate: times come from the video. CVAT writes single shapes as tracks
of one row. Which video: `formats.cvat._tasks`.

Boxes and single points move on straight lines between rows; other shapes (see
`formats.cvat._shapes`) stand as they were drawn. Attributes have no place in a sample and
are noted. Source: the CVAT manual, "XML annotation format", and CVAT's exporter
(``dataset_manager/formats/cvat.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.xml import Node, read_xml
from molmo_tune.labels.formats.cvat._shapes import kind_of_node, shape_of_node
from molmo_tune.labels.formats.cvat._tasks import CvatTask, check_size, group_by_task, read_tasks
from molmo_tune.labels.image_objects import LostError
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Point, Sample, Shape, Track
from molmo_tune.labels.tracks import (
    MISSING_VIDEO,
    NO_FRAME,
    NO_LABEL,
    NOT_A_NUMBER,
    ROTATED,
    Row,
    Values,
    numbers,
    observations,
    unique,
    upright_box,
)
from molmo_tune.labels.video_objects import closed_sample, open_video
from molmo_tune.media.video import VideoInfo

NOT_THERE = "outside: object absent"
TURNED_ROUND = "a box with swapped corners was turned round"
ATTRIBUTES = "attribute values are not kept"


def looks_like_cvat_video(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    if not re.search(r"<annotations\b", head) or re.search(r"<image\s", head):
        return False
    return bool(re.search(r"<track\s|<mode>\s*interpolation\b", head))


def read_cvat_video(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per video of the file that has annotations, in file order.

    Args:
        path: the XML file.
        media: the video, or the folder in which the video named in ``<meta>`` lies; without a name
            there, the video named like the XML file or the only one of the folder.
        tally: counts every row.

    Raises:
        UserError: the file is not such XML, a video's size is not the annotated one, a name climbs
            out of the media folder, or a track belongs to no task of the project.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "<annotations> of CVAT")
    for node in root.children:
        if node.tag not in ("version", "meta", "track"):
            counts = tally.of(node.attributes.get("label", ""), node.tag)
            counts.read()
            counts.drop("not part of CVAT for video", f"{path}:{node.line}")
    tasks = read_tasks(root, path)
    groups = group_by_task(root, path, tasks)
    media.check_number(len(groups), path)
    samples = (_sample(tasks[key], groups[key], path, media, tally) for key in groups)
    return [sample for sample in samples if sample is not None]


def _sample(
    task: CvatTask, tracks: Sequence[Node], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    video = open_video(media, task.names, task.hints, task.where, tally)
    if video is None:
        _lose(tracks, path, tally)
        return None
    check_size(task, video.path, video.info)
    taken: dict[str, int] = {}
    found = (_track(node, path, video.info, tally, taken) for node in tracks)
    kept = tuple(track for track in found if track.observations)
    return closed_sample(video, kept, task.where, tally)


def _lose(tracks: Iterable[Node], path: Path, tally: Tally) -> None:
    for track in tracks:
        for node in track.children:
            counts = tally.of(track.attributes.get("label", ""), kind_of_node(node))
            counts.read()
            counts.drop(MISSING_VIDEO, f"{path}:{node.line}")


def _track(node: Node, path: Path, info: VideoInfo, tally: Tally, taken: dict[str, int]) -> Track:
    label = node.attributes.get("label", "").strip()
    places = (f"{path}:{shape.line}" for shape in node.children)
    nodes = zip(node.children, places, strict=True)
    rows = [row_of(shape, label, place, info, tally) for shape, place in nodes]
    known = [row for row in rows if row is not None]
    found = observations(known, info, shape_of_values, lambda kind: tally.of(label, kind))
    return Track(unique(node.attributes.get("id", "track"), taken), label, found)


def row_of(node: Node, label: str, place: str, info: VideoInfo, tally: Tally) -> Row | None:
    """A row with its values, one without (not there, or lost), or None without a frame."""
    kind = kind_of_node(node)
    counts = tally.of(label, kind)
    counts.read()
    frame = node.attributes.get("frame", "")
    if not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", frame):
        counts.drop(NO_FRAME, place)
        return None
    if any(child.tag == "attribute" for child in node.children):
        tally.note(ATTRIBUTES, place)
    values, drawn = None, None
    if is_outside(node):
        counts.skip(NOT_THERE, place)
    elif not label:
        counts.drop(NO_LABEL, place)
    elif kind not in ("box", "point"):
        try:
            drawn = shape_of_node(node, kind, info.size_wh)
        except LostError as lost:
            counts.drop(str(lost), place)
    else:
        values = _values(node, label, place, tally)
    return Row(
        int(frame),
        values,
        place,
        kind,
        occluded=_is_set(node, "occluded"),
        computed=not _is_set(node, "keyframe", missing=True),
        shape=drawn,
    )


def _values(node: Node, label: str, place: str, tally: Tally) -> Values | None:
    """``(x, y)`` or ``(left, top, right, bottom)`` in pixels; None, and counted, when lost."""
    is_box = node.tag == "box"
    counts = tally.of(label, kind_of_node(node))
    texts = (
        [node.attributes.get(name) for name in ("xtl", "ytl", "xbr", "ybr")]
        if is_box
        else node.attributes.get("points", "").strip("; ").split(",")
    )
    values = numbers(texts)
    turn = numbers([node.attributes.get("rotation", "0")])
    if values is None or turn is None or len(values) != (4 if is_box else 2):
        counts.drop(NOT_A_NUMBER, place)
        return None
    if not is_box:
        return values
    left, top, right, bottom = values
    if right < left or bottom < top:
        counts.correct(TURNED_ROUND, place)
    if turn[0] % 360:
        counts.correct(ROTATED, place)
    return upright_box((left, top), (right - left, bottom - top), turn[0], "center").xyxy_px


def shape_of_values(values: Values) -> Shape:
    """The point or box that moves on a straight line."""
    if len(values) == 2:
        return Point((values[0], values[1]))
    return Box((values[0], values[1], values[2], values[3]))


def is_outside(node: Node) -> bool:
    """Whether a row says that nothing is there; a skeleton is gone when all its points are."""
    if node.tag == "skeleton":
        parts = [child for child in node.children if child.tag != "attribute"]
        return bool(parts) and all(_is_set(part, "outside") for part in parts)
    return _is_set(node, "outside")


def _is_set(node: Node, name: str, *, missing: bool = False) -> bool:
    return node.attributes.get(name, "1" if missing else "0").strip().lower() in ("1", "true")


READER = Reader(
    one_by_one(read_cvat_video),
    looks_like_cvat_video,
    "*.xml",
    "CVAT for video 1.1 (XML with <track>)",
)
