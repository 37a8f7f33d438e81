"""CVAT for video 1.1: one XML file with tracks, one row per frame.

    <track id="0" label="car" task_id="5">
      <box frame="10" outside="0" occluded="1" keyframe="1" xtl="3" ytl="4" xbr="10" ybr="5"/>
      <box frame="13" outside="1" …/>          the object has left; the coordinates mean nothing

Coordinates: pixels of the original video, origin at the top left.
Times: ``frame`` is the 0-based index in the *original* video, even if the task shows only every
    n-th frame. Times come from the video, because the file has no frame rate.
Objects: between rows, boxes and single points move linearly; other shapes (`formats.cvat._shapes`)
    are copied from the nearer row over at most a quarter of a second. CVAT exports single shapes as
    tracks of one row. A rotated box is replaced by its bounding box.
Media: the video named in ``<meta>`` (`formats.cvat._tasks`).
Skipped: rows that are ``outside``.
Dropped: elements other than tracks, and rows without a label or a valid shape. Attribute values are
    not kept.
Exhaustive labels: none.
Source: CVAT manual, "XML annotation format", and CVAT's exporter
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
from molmo_tune.labels.image_objects import ABSENT, DroppedRowError
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

SWAPPED_CORNERS = "swapped box corners reordered"
ATTRIBUTES = "attribute values are not kept"


def looks_like_cvat_video(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    if not re.search(r"<annotations\b", head) or re.search(r"<image\s", head):
        return False
    return bool(re.search(r"<track\s|<mode>\s*interpolation\b", head))


def read_cvat_video(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video with annotations, in file order.

    Args:
        path: the XML file.
        media: the video, or the folder with the video named in ``<meta>``; without a name there,
            the video named like the XML file, or the only one of the folder.
        tally: counts every row.

    Raises:
        UserError: the file is not CVAT XML, a video's size differs from the annotated size, a name
            points outside the media folder, or the task of a track is not in the project.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "<annotations> of CVAT")
    for node in root.children:
        if node.tag not in ("version", "meta", "track"):
            counts = tally.of(node.attributes.get("label", ""), node.tag)
            counts.read()
            counts.drop("element is not part of CVAT for video", f"{path}:{node.line}")
    tasks = read_tasks(root, path)
    groups = group_by_task(root, path, tasks)
    media.check_single_file(len(groups), path)
    samples = (_sample(tasks[key], groups[key], path, media, tally) for key in groups)
    return [sample for sample in samples if sample is not None]


def _sample(
    task: CvatTask, tracks: Sequence[Node], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    video = open_video(media, task.names, task.hints, task.where, tally)
    if video is None:
        _drop_tracks(tracks, path, tally)
        return None
    check_size(task, video.path, video.info)
    ids: dict[str, int] = {}
    found = (_track(node, path, video.info, tally, ids) for node in tracks)
    kept = tuple(track for track in found if track.observations)
    return closed_sample(video, kept, task.where, tally)


def _drop_tracks(tracks: Iterable[Node], path: Path, tally: Tally) -> None:
    for track in tracks:
        for node in track.children:
            counts = tally.of(track.attributes.get("label", ""), kind_of_node(node))
            counts.read()
            counts.drop(MISSING_VIDEO, f"{path}:{node.line}")


def _track(node: Node, path: Path, info: VideoInfo, tally: Tally, ids: dict[str, int]) -> Track:
    label = node.attributes.get("label", "").strip()
    places = (f"{path}:{shape.line}" for shape in node.children)
    nodes = zip(node.children, places, strict=True)
    rows = [row_of(shape, label, place, info, tally) for shape, place in nodes]
    valid = [row for row in rows if row is not None]
    found = observations(valid, info, shape_of_values, lambda kind: tally.of(label, kind))
    return Track(unique(node.attributes.get("id", "track"), ids), label, found)


def row_of(node: Node, label: str, place: str, info: VideoInfo, tally: Tally) -> Row | None:
    """Return a row, without values if absent or dropped; None without a frame number."""
    kind = kind_of_node(node)
    counts = tally.of(label, kind)
    counts.read()
    frame = node.attributes.get("frame", "")
    if not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", frame):
        counts.drop(NO_FRAME, place)
        return None
    if any(child.tag == "attribute" for child in node.children):
        tally.note(ATTRIBUTES, place)
    values, shape = None, None
    if is_outside(node):
        counts.skip(ABSENT, place)
    elif not label:
        counts.drop(NO_LABEL, place)
    elif kind not in ("box", "point"):
        try:
            shape = shape_of_node(node, kind, info.size_wh)
        except DroppedRowError as error:
            counts.drop(str(error), place)
    else:
        values = _values(node, label, place, tally)
    return Row(
        int(frame),
        values,
        place,
        kind,
        occluded=_is_set(node, "occluded"),
        computed=not _is_set(node, "keyframe", missing=True),
        shape=shape,
    )


def _values(node: Node, label: str, place: str, tally: Tally) -> Values | None:
    """Return ``(x, y)`` or ``(left, top, right, bottom)`` in pixels; None, counted, if invalid."""
    is_box = node.tag == "box"
    counts = tally.of(label, kind_of_node(node))
    texts = (
        [node.attributes.get(name) for name in ("xtl", "ytl", "xbr", "ybr")]
        if is_box
        else node.attributes.get("points", "").strip("; ").split(",")
    )
    values = numbers(texts)
    rotation = numbers([node.attributes.get("rotation", "0")])
    if values is None or rotation is None or len(values) != (4 if is_box else 2):
        counts.drop(NOT_A_NUMBER, place)
        return None
    if not is_box:
        return values
    left, top, right, bottom = values
    if right < left or bottom < top:
        counts.correct(SWAPPED_CORNERS, place)
    if rotation[0] % 360:
        counts.correct(ROTATED, place)
    return upright_box((left, top), (right - left, bottom - top), rotation[0], "center").xyxy_px


def shape_of_values(values: Values) -> Shape:
    """Return the point or box of interpolated values."""
    if len(values) == 2:
        return Point((values[0], values[1]))
    return Box((values[0], values[1], values[2], values[3]))


def is_outside(node: Node) -> bool:
    """Whether the object is absent; a skeleton is absent if all its points are outside."""
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
