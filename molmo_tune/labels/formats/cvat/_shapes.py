"""Shapes of CVAT's XML: boxes, polygons, points, ellipses, masks and skeletons, in pixels.

Image and video files use the same elements. A mask's run lengths go row by row through its own box,
zeros first, which is not COCO's order. A ``<points>`` element with several points is one object
with landmarks (CVAT manual, "Annotation with points"), not several objects; it is dropped, because
its points have no names. Polylines and cuboids are dropped, because they have no interior.
"""

from __future__ import annotations

from typing import TypeVar

from molmo_tune.labels.files.xml import Node
from molmo_tune.labels.geometry.masks import pack, unpack_rows
from molmo_tune.labels.geometry.shapes import SizeWH, ellipse, rotated_box
from molmo_tune.labels.image_objects import DroppedRowError, corners_of, spelled
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Mask, Point, Polygon, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER

T = TypeVar("T")

NO_INSIDE = "shape without an interior"
SEVERAL_POINTS = "several points in one shape; draw single points, or a skeleton for landmarks"
UNKNOWN_SHAPE = "unknown shape"


def kind_of_node(node: Node) -> str:
    """Return the tag, but ``point`` for ``<points>`` with a single point."""
    if node.tag != "points":
        return node.tag
    return "points" if ";" in node.attributes.get("points", "").strip("; ") else "point"


def shape_of_node(node: Node, kind: str, size_wh: SizeWH) -> Shape:
    """Return the shape of an element in pixels; it can extend beyond the frame.

    Raises:
        DroppedRowError: the shape is invalid or not supported.
    """
    match kind:
        case "box":
            return _box(node)
        case "polygon":
            return Polygon((corners_of(_points(node)),))
        case "point":
            x, y = _exactly(_points(node), 2)
            return Point((x, y))
        case "points":
            raise DroppedRowError(SEVERAL_POINTS)
        case "polyline" | "cuboid":
            raise DroppedRowError(NO_INSIDE)
        case "ellipse":
            x, y, across, down = _values(node, "cx", "cy", "rx", "ry")
            return ellipse((x, y), (abs(across), abs(down)), _rotation(node))
        case "mask":
            return _mask(node, size_wh)
        case "skeleton":
            return Keypoints(tuple(_keypoint(point) for point in present_points(node)))
    raise DroppedRowError(UNKNOWN_SHAPE)


def _box(node: Node) -> Box | Polygon:
    left, top, right, bottom = _values(node, "xtl", "ytl", "xbr", "ybr")
    degrees = _rotation(node)
    if degrees % 360:
        return rotated_box((left, top), (right - left, bottom - top), degrees, "center")
    return Box((min(left, right), min(top, bottom), max(left, right), max(top, bottom)))


def has_swapped_corners(node: Node) -> bool:
    """Whether the corners of a box are swapped."""
    try:
        left, top, right, bottom = _values(node, "xtl", "ytl", "xbr", "ybr")
    except DroppedRowError:
        return False
    return right < left or bottom < top


def _mask(node: Node, size_wh: SizeWH) -> Mask:
    left, top, width, height = map(int, _values(node, "left", "top", "width", "height"))
    runs = spelled(node.attributes.get("rle", "").split(","))
    if any(run < 0 or run != int(run) or run > 2**31 for run in runs):
        raise DroppedRowError(NOT_A_NUMBER)
    try:
        return pack(unpack_rows([int(run) for run in runs], (left, top), (width, height), size_wh))
    except ValueError as error:
        raise DroppedRowError(str(error)) from error


def present_points(node: Node) -> list[Node]:
    """Return the points of a skeleton that are not outside."""
    present = ("0", "false", "")
    points = node.all("points")
    return [p for p in points if p.attributes.get("outside", "0").strip().lower() in present]


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
        raise DroppedRowError(NOT_A_NUMBER)
    return values
