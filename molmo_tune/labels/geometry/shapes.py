"""What all shapes have in common: bounds, the part inside a frame, rotation, interpolation.

Boxes and polygons may extend beyond the edge of the frame and are clipped there. A mask has the
size of its frame. Keypoints outside the frame are removed. An object entirely outside the frame has
no part in it (None), and the reader counts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import mul

from molmo_tune.labels.geometry.masks import runs_of
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Mask, Point, Polygon, Shape

XY = tuple[float, float]
SizeWH = tuple[int, int]

ELLIPSE_CORNERS = 64
_NO_AREA_PX2 = 1e-9
_ROUNDING_PX = 0.01  # tools write hundredths of a pixel; less is not counted as clipped


def kind_of(shape: Shape) -> str:
    """Return a shape's name in reports, such as ``polygon``."""
    return type(shape).__name__.lower()


def fit(shape: Shape, size_wh: SizeWH) -> tuple[Shape | None, bool]:
    """Return the part of a shape inside the frame, None if empty, and whether it was clipped."""
    if isinstance(shape, Box):
        return _fit_box(shape, size_wh)
    if isinstance(shape, Point):
        return (shape if in_frame(shape.xy_px, size_wh) else None), False
    if isinstance(shape, Polygon):
        return _fit_polygon(shape, size_wh)
    if isinstance(shape, Mask):
        return (shape if len(runs_of(shape)) > 1 else None), False
    return _fit_keypoints(shape, size_wh)


def in_frame(xy_px: XY, size_wh: SizeWH) -> bool:
    """Whether a point is in the frame or on its edge."""
    return 0 <= xy_px[0] <= size_wh[0] and 0 <= xy_px[1] <= size_wh[1]


def clip_box(box: Box, size_wh: SizeWH) -> Box | None:
    """Return the part of a box inside the frame, None if empty."""
    left, top, right, bottom = box.xyxy_px
    left, right = max(left, 0.0), min(right, float(size_wh[0]))
    top, bottom = max(top, 0.0), min(bottom, float(size_wh[1]))
    if not (left < right and top < bottom):  # also false for NaN after an overflow
        return None
    return Box((left, top, right, bottom))


def has_area(shape: Shape) -> bool:
    """Whether a box or polygon has an area; other shapes need none."""
    if isinstance(shape, Box):
        left, top, right, bottom = shape.xyxy_px
        return right > left and bottom > top
    if not isinstance(shape, Polygon):
        return True
    return any(abs(area_px2(part)) > _NO_AREA_PX2 for part in shape.parts_px)


def area_px2(corners: Sequence[XY]) -> float:
    """Return the area within the corners, negative if they run counterclockwise on the screen."""
    xs, ys = zip(*corners, strict=True)
    return _area_px2(xs, ys)


def _area_px2(xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    after = sum(map(mul, xs, ys[1:] + ys[:1])), sum(map(mul, ys, xs[1:] + xs[:1]))
    return float(after[0] - after[1]) / 2


def bounds(corners: Sequence[XY]) -> Box:
    """Return the bounding box of points."""
    xs, ys = zip(*corners, strict=True)
    return Box((min(xs), min(ys), max(xs), max(ys)))


def rotated_box(corner_xy: XY, size_wh: XY, degrees: float, at: str) -> Polygon:
    """Return the corners of a rotated box in pixels, clockwise from its top left corner.

    Args:
        corner_xy: top left corner before the rotation.
        size_wh: width and height; negative values extend to the left and up.
        degrees: rotation, clockwise on the screen.
        at: pivot, ``corner`` or ``center``.
    """
    (x, y), (width, height) = corner_xy, size_wh
    pivot = (x + width / 2, y + height / 2) if at == "center" else corner_xy
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Polygon((tuple(rotate(corner, pivot, degrees) for corner in corners),))


def ellipse(center_xy: XY, radii: XY, degrees: float = 0.0) -> Polygon:
    """Return an ellipse, rotated clockwise about its center, as a polygon 0.2% smaller."""
    (x, y), (across, down) = center_xy, radii
    angles = [2 * math.pi * number / ELLIPSE_CORNERS for number in range(ELLIPSE_CORNERS)]
    rim = [(x + across * math.cos(a), y + down * math.sin(a)) for a in angles]
    return Polygon((tuple(rotate(corner, center_xy, degrees) for corner in rim),))


def rotate(xy: XY, pivot: XY, degrees: float) -> XY:
    """Rotate a point clockwise on the screen; the result is NaN if the angle overflowed."""
    degrees = degrees if math.isfinite(degrees) else math.nan
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = xy[0] - pivot[0], xy[1] - pivot[1]
    return pivot[0] + u * cos - v * sin, pivot[1] + u * sin + v * cos


def interpolate(before: Shape, after: Shape, fraction: float) -> Shape:
    """Return the shape between two shapes of an object, at a fraction from 0 to 1 of the way.

    Corners move linearly if both shapes have the same number, keypoints if both have the name;
    otherwise the nearer shape is returned.
    """
    if isinstance(before, Keypoints) and isinstance(after, Keypoints):
        ends = {point.name: point.xy_px for point in after.points}
        return Keypoints(
            tuple(
                Keypoint(p.name, _on_line(p.xy_px, ends.get(p.name, p.xy_px), fraction), p.visible)
                for p in before.points
            )
        )
    if isinstance(before, Polygon) and isinstance(after, Polygon):
        pairs = list(zip(before.parts_px, after.parts_px, strict=False))
        if list(map(len, before.parts_px)) == list(map(len, after.parts_px)):
            return Polygon(
                tuple(
                    tuple(_on_line(a, b, fraction) for a, b in zip(first, second, strict=True))
                    for first, second in pairs
                )
            )
    return before if fraction <= 0.5 else after


def _on_line(before: XY, after: XY, fraction: float) -> XY:
    return before[0] + (after[0] - before[0]) * fraction, before[1] + (
        after[1] - before[1]
    ) * fraction


def _fit_box(box: Box, size_wh: SizeWH) -> tuple[Box | None, bool]:
    left, top, right, bottom = box.xyxy_px
    if 0 <= left < right <= size_wh[0] and 0 <= top < bottom <= size_wh[1]:
        return box, False
    inside = clip_box(box, size_wh)
    if inside is None:
        return None, False
    shifts = (abs(a - b) for a, b in zip(box.xyxy_px, inside.xyxy_px, strict=True))
    return inside, max(shifts) > _ROUNDING_PX


def _fit_polygon(polygon: Polygon, size_wh: SizeWH) -> tuple[Polygon | None, bool]:
    if len(polygon.parts_px) == 1:  # nearly all polygons, and nearly all of them are in the frame
        xs, ys = zip(*polygon.parts_px[0], strict=True)
        if min(xs) >= 0 and min(ys) >= 0 and max(xs) <= size_wh[0] and max(ys) <= size_wh[1]:
            return (polygon if abs(_area_px2(xs, ys)) > _NO_AREA_PX2 else None), False
    corners = [corner for part in polygon.parts_px for corner in part]
    if not all(math.isfinite(value) for corner in corners for value in corner):
        return None, False  # after an overflow
    left, top, right, bottom = bounds(corners).xyxy_px
    overhang = max(-left, -top, right - size_wh[0], bottom - size_wh[1])
    if overhang > 0:
        clipped = (_clip_at_edges(part, size_wh) for part in polygon.parts_px)
        polygon = Polygon(tuple(part for part in clipped if len(part) >= 3))
    return (polygon if has_area(polygon) else None), overhang > _ROUNDING_PX


def _clip_at_edges(corners: Sequence[XY], size_wh: SizeWH) -> tuple[XY, ...]:
    """Clip at one edge of the frame after the other (Sutherland and Hodgman)."""
    edges: tuple[tuple[int, float, Callable[[float, float], bool]], ...] = (
        (0, 0.0, float.__ge__),
        (0, float(size_wh[0]), float.__le__),
        (1, 0.0, float.__ge__),
        (1, float(size_wh[1]), float.__le__),
    )
    for axis, edge, is_inside in edges:
        kept: list[XY] = []
        for here, there in zip(corners, (*corners[1:], *corners[:1]), strict=True):
            ins = (is_inside(float(here[axis]), edge), is_inside(float(there[axis]), edge))
            if ins[0]:
                kept.append(here)
            if ins[0] != ins[1]:
                fraction = (edge - here[axis]) / (there[axis] - here[axis])
                across = here[1 - axis] + fraction * (there[1 - axis] - here[1 - axis])
                kept.append((edge, across) if axis == 0 else (across, edge))
        corners = kept
    return tuple(corners)


def _fit_keypoints(shape: Keypoints, size_wh: SizeWH) -> tuple[Keypoints | None, bool]:
    points = tuple(point for point in shape.points if in_frame(point.xy_px, size_wh))
    extent, is_clipped = fit(shape.extent, size_wh) if shape.extent is not None else (None, False)
    if not points and extent is None:
        return None, False
    assert extent is None or isinstance(extent, Box | Polygon | Mask)
    return Keypoints(points, extent), is_clipped or len(points) < len(shape.points)
