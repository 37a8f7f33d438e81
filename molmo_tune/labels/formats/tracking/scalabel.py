"""BDD100K and Scalabel JSON: a list of frames with labels, also as ``{"frames": […]}``.

    [{"name": "b1c8-0000001.jpg", "videoName": "b1c8", "frameIndex": 0, "labels": [
        {"id": "a", "category": "car", "attributes": {"occluded": true, "crowd": false},
         "box2d": {"x1": …, "y1": …, "x2": …, "y2": …}, "poly2d": [{"vertices": …}], "rle": …}]}]

Shapes: pixels from 0; of several shapes of a label the first of ``rle``, ``poly2d`` and ``box2d``
    is read. In ``types`` of a polygon, ``L`` is a corner and ``C`` one of the two control points of
    a curve, which becomes eight straight lines.
Frames: ``frameIndex`` counts the *labeled* frames from 0: BDD100K sampled its videos at 5 fps
    before labeling. So the video must have exactly as many frames as the last index plus one; the
    original recording, with six times as many, is dropped because labels would be on wrong frames.
Gaps: between labeled frames, boxes move on a straight line (over at most 2 s), other shapes keep
    the nearer one (over at most 0.25 s); added shapes count as interpolated.
Hidden: labels with ``occluded``.
Media: videos are named like ``videoName``.
Skipped: crowds.
Dropped: lanes and other open lines, frames without ``videoName`` or ``frameIndex``.
Exhaustive labels: none.
Source: the format documentation of Scalabel, doc.scalabel.com.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.files.text_rows import whole
from molmo_tune.labels.geometry.frame_masks import mask_of
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import NEGATIVE, TOO_FEW_CORNERS, DroppedRowError, floats
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER
from molmo_tune.labels.video_objects import VideoObjects, open_video

CROWD = "a crowd, not one object"
NO_SHAPE = "neither box2d, poly2d nor rle"
OPEN_LINE = "an open line, not an object with an extent"
NO_VIDEO_NAME = "no videoName or frameIndex: an image, not a frame of a video"
CURVE_LINES = 8

XY = tuple[float, float]
Entry = Mapping[str, Any]


def looks_like_scalabel(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    is_json = head.lstrip()[:1] in ("[", "{")
    return is_json and ('"videoName"' in head or '"frameIndex"' in head) and '"labels"' in head


def read_scalabel(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video, in file order.

    Raises:
        UserError: the file is not JSON of this format, or a name points outside the media folder.
    """
    data = read_json(path)
    frames = data.get("frames") if isinstance(data, dict) else data
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise UserError(path, "no list of frames", "BDD100K or Scalabel JSON")
    videos: dict[str, list[Entry]] = {}
    for frame in frames:
        name = frame.get("videoName", frame.get("video_name"))
        if isinstance(name, str) and name and _index(frame) is not None:
            videos.setdefault(name, []).append(frame)
        else:
            counts = tally.of("", "frame")
            counts.read()
            counts.drop(NO_VIDEO_NAME, f"{path}: frame {frame.get('name')}")
    media.check_single_file(len(videos), path)
    found = (_sample(name, group, path, media, tally) for name, group in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(
    name: str, frames: Sequence[Entry], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    place = f"{path}: video {name}"
    length = 1 + max(_index(frame) or 0 for frame in frames)
    video = open_video(media, (name,), (), place, tally, None, length)
    objects = VideoObjects(video, tally, place)
    for frame in frames:
        labels = frame.get("labels") or []
        if not isinstance(labels, list):
            raise UserError(place, "labels is not a list", "a list of labels per frame")
        for label in labels:
            _add(label if isinstance(label, dict) else {}, _index(frame), place, objects)
    return objects.sample(labeled_frames=[i for f in frames if (i := _index(f)) is not None])


def _add(row: Entry, frame: int | None, video: str, objects: VideoObjects) -> None:
    label, attributes = str(row.get("category") or ""), row.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    kind = next((key for key in ("rle", "poly2d", "box2d") if row.get(key)), "label")
    name = {"rle": "mask", "poly2d": "polygon", "box2d": "box"}.get(kind, kind)
    place = f"{video}, frame {frame}, label {row.get('id')}"
    if attributes.get("crowd") is True:
        objects.skip(label, name, place, CROWD)
        return
    hidden = attributes.get("occluded") is True
    id = str(row.get("id"))
    objects.add(label, name, id, frame, place, lambda s: _shape(row, kind, s), occluded=hidden)


def _shape(row: Entry, kind: str, size_wh: SizeWH) -> Shape:
    if kind == "rle":
        return mask_of(row["rle"], size_wh)
    if kind == "poly2d":
        parts = row["poly2d"]
        if not isinstance(parts, list):
            raise DroppedRowError(NOT_A_NUMBER)
        return Polygon(tuple(_corners(part) for part in parts))
    if kind != "box2d" or not isinstance(row["box2d"], dict):
        raise DroppedRowError(NO_SHAPE)
    left, top, right, bottom = floats([row["box2d"].get(key) for key in ("x1", "y1", "x2", "y2")])
    if right < left or bottom < top:
        raise DroppedRowError(NEGATIVE)
    return Box((left, top, right, bottom))


def _corners(part: object) -> tuple[XY, ...]:
    vertices = part.get("vertices") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(vertices, list):
        raise DroppedRowError(NOT_A_NUMBER)
    if part.get("closed") is False:
        raise DroppedRowError(OPEN_LINE)
    points = [(x, y) for x, y in (floats(vertex, 2) for vertex in vertices)]
    types = str(part.get("types") or "L" * len(points))
    corners: list[XY] = []
    for number, point in enumerate(points):
        if types[number : number + 1] != "C":
            corners.append(point)
        elif types[number : number + 2] == "CC" and number:
            end = points[(number + 2) % len(points)]
            corners += _curve(points[number - 1], point, points[(number + 1) % len(points)], end)
    if len(corners) < 3:
        raise DroppedRowError(TOO_FEW_CORNERS)
    return tuple(corners)


def _curve(start: XY, first: XY, second: XY, end: XY) -> list[XY]:
    """Return points on a cubic Bézier curve, without its ends."""
    found = []
    for t in (number / CURVE_LINES for number in range(1, CURVE_LINES)):
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        controls = (start, first, second, end)
        x, y = (sum(w * p[axis] for w, p in zip(weights, controls, strict=True)) for axis in (0, 1))
        found.append((x, y))
    return found


def _index(frame: Entry) -> int | None:
    return whole(str(frame.get("frameIndex", frame.get("frame_index"))))


READER = Reader(
    one_by_one(read_scalabel),
    looks_like_scalabel,
    "*.json",
    "BDD100K or Scalabel (JSON with videoName and labels)",
)
