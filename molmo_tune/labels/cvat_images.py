"""CVAT for images 1.1: one XML file, an ``<image>`` with its shapes for each picture.

    <image id="0" name="a.jpg" subset="train" width="640" height="480">
      <box label="car" xtl="3" ytl="4" xbr="10" ybr="5" rotation="30" occluded="0"/>
      <polygon label="car" points="1,1;5,1;5,5"/>
      <mask label="car" rle="3, 5, …" left="7" top="8" width="13" height="15"/>
      <skeleton label="cat"><points label="nose" points="4,5" outside="0" occluded="0"/></skeleton>

Pixels count from 0. Exports of a task, a job and a project differ in ``<meta>`` only, which is not
read: every image names itself (and in a project its subset, a folder). The runs of a mask go row by
row through the mask's own box, zeros first. Boxes and ellipses turn clockwise about their centre
and become polygons. A point of a skeleton that is ``outside`` is not there, an occluded one hidden.

Losses: polylines and cuboids, which have no inside; tags, which are about the whole image; and a
``<points>`` of several, which is several objects for some and one with landmarks for others.
Attribute values are noted. ``exhaustive_labels``: CVAT promises nothing, none are set. Source: the
CVAT manual, "XML annotation format".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from molmo_tune.errors import UserError
from molmo_tune.labels.cvat_video import ATTRIBUTES
from molmo_tune.labels.images import (
    NOT_THERE_AT_ALL,
    LostError,
    Objects,
    corners_of,
    open_objects,
    spelled,
    stated_size,
)
from molmo_tune.labels.masks import crop_of_rows, pack
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.opening import Node, read_xml
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Mask, Point, Polygon, Sample, Shape
from molmo_tune.labels.shapes import SizeWH, ellipse, turned_box
from molmo_tune.labels.tracks import NOT_A_NUMBER

T = TypeVar("T")

TURNED_ROUND = "a box with swapped corners was turned round"
NO_INSIDE = "a shape without an inside"
WHOLE_IMAGE = "a tag is about the whole image"
SEVERAL_POINTS = "several points in one shape: draw single points, or a skeleton for landmarks"
UNKNOWN_SHAPE = "a shape that is not known"


def looks_like_cvat_images(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return bool(re.search(r"<annotations\b", head) and re.search(r"<image\s", head))


def read_cvat_images(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """One sample per image with objects, in file order.

    Raises:
        UserError: the file is not such XML, or a name climbs out of the media folder.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "<annotations> of CVAT")
    images = list(root.all("image"))
    media.check_number(len(images), path)
    samples = (_sample(image, path, media, tally) for image in images)
    return [sample for sample in samples if sample is not None]


def _sample(image: Node, path: Path, media: MediaSource, tally: Tally) -> Sample | None:
    name, subset = image.attributes.get("name", ""), image.attributes.get("subset", "")
    size = _stated(image)
    names = [f"{subset}/{name}", name] if subset and name else [name] if name else []
    objects = open_objects(media, names, f"{path}:{image.line}", size, tally)
    for node in image.children:
        _add(node, objects, path, tally)
    return objects.sample()


def _stated(image: Node) -> SizeWH | None:
    texts = [image.attributes.get(name, "") for name in ("width", "height")]
    return stated_size(*(int(t) if t.isdecimal() and len(t) < 10 else None for t in texts))


def _add(node: Node, objects: Objects, path: Path, tally: Tally) -> None:
    label, place = node.attributes.get("label", "").strip(), f"{path}:{node.line}"
    kind = _kind(node)
    if any(child.tag == "attribute" for child in node.children):
        tally.note(ATTRIBUTES, place)
    if kind in ("polyline", "cuboid"):
        objects.drop(label, kind, place, NO_INSIDE)
    elif kind == "tag":
        objects.drop(label, kind, place, WHOLE_IMAGE)
    elif kind == "skeleton" and not _points_there(node):
        objects.leave_out(label, kind, place, NOT_THERE_AT_ALL)
    else:
        if kind == "box" and _is_turned_round(node):
            objects.repaired(label, kind, TURNED_ROUND, place)
        objects.add(label, kind, place, lambda size_wh: _shape(node, kind, size_wh))


def _kind(node: Node) -> str:
    """The tag, but ``point`` for a ``<points>`` of one."""
    if node.tag != "points":
        return node.tag
    return "points" if ";" in node.attributes.get("points", "").strip("; ") else "point"


def _shape(node: Node, kind: str, size_wh: SizeWH) -> Shape:
    match kind:
        case "box":
            return _box(node)
        case "polygon":
            return Polygon((corners_of(_points(node)),))
        case "point":
            x, y = _exactly(_points(node), 2)
            return Point((x, y))
        case "points":
            raise LostError(SEVERAL_POINTS)
        case "ellipse":
            x, y, across, down = _values(node, "cx", "cy", "rx", "ry")
            return ellipse((x, y), (abs(across), abs(down)), _rotation(node))
        case "mask":
            return _mask(node, size_wh)
        case "skeleton":
            return Keypoints(tuple(_keypoint(point) for point in _points_there(node)))
    raise LostError(UNKNOWN_SHAPE)


def _box(node: Node) -> Box | Polygon:
    left, top, right, bottom = _values(node, "xtl", "ytl", "xbr", "ybr")
    degrees = _rotation(node)
    if degrees % 360:
        return turned_box((left, top), (right - left, bottom - top), degrees, "centre")
    return Box((min(left, right), min(top, bottom), max(left, right), max(top, bottom)))


def _is_turned_round(node: Node) -> bool:
    try:
        left, top, right, bottom = _values(node, "xtl", "ytl", "xbr", "ybr")
    except LostError:
        return False
    return right < left or bottom < top


def _mask(node: Node, size_wh: SizeWH) -> Mask:
    left, top, width, height = map(int, _values(node, "left", "top", "width", "height"))
    runs = spelled(node.attributes.get("rle", "").split(","))
    if any(run < 0 or run != int(run) or run > 2**31 for run in runs):
        raise LostError(NOT_A_NUMBER)
    try:
        return pack(crop_of_rows([int(run) for run in runs], (left, top), (width, height), size_wh))
    except ValueError as error:
        raise LostError(str(error)) from error


def _points_there(node: Node) -> list[Node]:
    is_there = ("0", "false", "")
    points = node.all("points")
    return [p for p in points if p.attributes.get("outside", "0").strip().lower() in is_there]


def _keypoint(node: Node) -> Keypoint:
    x, y = _exactly(_points(node), 2)
    is_hidden = node.attributes.get("occluded", "0").strip().lower() in ("1", "true")
    return Keypoint(node.attributes.get("label", "").strip(), (x, y), not is_hidden)


def _points(node: Node) -> list[float]:
    pairs = node.attributes.get("points", "").strip("; \n").split(";")
    return spelled(value for pair in pairs for value in _exactly(pair.split(","), 2))


def _values(node: Node, *names: str) -> list[float]:
    return _exactly(spelled(node.attributes.get(name) for name in names), len(names))


def _rotation(node: Node) -> float:
    return spelled([node.attributes.get("rotation", "0")])[0]


def _exactly(values: list[T], count: int) -> list[T]:
    if len(values) != count:
        raise LostError(NOT_A_NUMBER)
    return values


READER = Reader(
    one_by_one(read_cvat_images),
    looks_like_cvat_images,
    "*.xml",
    "CVAT for images 1.1 (XML with <image>)",
)
