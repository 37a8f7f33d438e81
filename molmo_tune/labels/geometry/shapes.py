"""What all shapes have in common: their bounds, their part inside a frame, how askew ones are made.

Boxes and polygons may be drawn beyond the edge of the frame and are cut there. A mask lies on its
own frame. Of named points those outside are left away; an object of which nothing lies inside has
no part in the frame (None), and the reader counts it.
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
_ROUNDING_PX = 0.01  # tools write hundredths of a pixel; less than that is no cut


def kind_of(shape: Shape) -> str:
    """The word for a shape in reports: ``point``, ``box``, ``polygon``, ``mask``, ``keypoints``."""
    return type(shape).__name__.lower()


def fit(shape: Shape, size_wh: SizeWH) -> tuple[Shape | None, bool]:
    """The part of a shape inside the frame, None when there is none, and whether it was cut."""
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
    """Whether a point lies in the frame or on its edge."""
    return 0 <= xy_px[0] <= size_wh[0] and 0 <= xy_px[1] <= size_wh[1]


def clip_box(box: Box, size_wh: SizeWH) -> Box | None:
    """The part of a box inside the frame, or None when there is none."""
    left, top, right, bottom = box.xyxy_px
    left, right = max(left, 0.0), min(right, float(size_wh[0]))
    top, bottom = max(top, 0.0), min(bottom, float(size_wh[1]))
    if not (left < right and top < bottom):  # nor with a NaN, as of a share that overflowed
        return None
    return Box((left, top, right, bottom))


def has_area(shape: Shape) -> bool:
    """Whether a box or polygon is more than a line; other shapes need no area."""
    if isinstance(shape, Box):
        left, top, right, bottom = shape.xyxy_px
        return right > left and bottom > top
    if not isinstance(shape, Polygon):
        return True
    return any(abs(area_px2(part)) > _NO_AREA_PX2 for part in shape.parts_px)


def area_px2(corners: Sequence[XY]) -> float:
    """Area within the corners, negative when they go round against the clock on the screen."""
    xs, ys = zip(*corners, strict=True)
    return _area_px2(xs, ys)


def _area_px2(xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    after = sum(map(mul, xs, ys[1:] + ys[:1])), sum(map(mul, ys, xs[1:] + xs[:1]))
    return float(after[0] - after[1]) / 2


def bounds(corners: Sequence[XY]) -> Box:
    """The upright box around points."""
    xs, ys = zip(*corners, strict=True)
    return Box((min(xs), min(ys), max(xs), max(ys)))


def turned_box(corner_xy: XY, size_wh: XY, degrees: float, at: str) -> Polygon:
    """The four corners of a rotated box, in pixels, from its top left one clockwise.

    Args:
        corner_xy: top left corner before the rotation.
        size_wh: width and height; negative ones reach to the left and up.
        degrees: clockwise on the screen.
        at: ``corner`` or ``center``, the point it turns about.
    """
    (x, y), (width, height) = corner_xy, size_wh
    pivot = (x + width / 2, y + height / 2) if at == "center" else corner_xy
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Polygon((tuple(turned(corner, pivot, degrees) for corner in corners),))


def ellipse(center_xy: XY, radii: XY, degrees: float = 0.0) -> Polygon:
    """An ellipse as a polygon of 64 corners, 0.2 % smaller; it turns clockwise about its center."""
    (x, y), (across, down) = center_xy, radii
    angles = [2 * math.pi * number / ELLIPSE_CORNERS for number in range(ELLIPSE_CORNERS)]
    rim = [(x + across * math.cos(a), y + down * math.sin(a)) for a in angles]
    return Polygon((tuple(turned(corner, center_xy, degrees) for corner in rim),))


def turned(xy: XY, pivot: XY, degrees: float) -> XY:
    """A point turned clockwise on the screen; NaN by an angle that overflowed."""
    degrees = degrees if math.isfinite(degrees) else math.nan
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = xy[0] - pivot[0], xy[1] - pivot[1]
    return pivot[0] + u * cos - v * sin, pivot[1] + u * sin + v * cos


def moved(before: Shape, after: Shape, share: float) -> Shape:
    """What lies between two shapes of an object, at a share of the way from 0 to 1.

    Corners move on straight lines where both have as many, named points where both have the name;
    of all else the nearer is taken.
    """
    if isinstance(before, Keypoints) and isinstance(after, Keypoints):
        ends = {point.name: point.xy_px for point in after.points}
        return Keypoints(
            tuple(
                Keypoint(p.name, _on_line(p.xy_px, ends.get(p.name, p.xy_px), share), p.visible)
                for p in before.points
            )
        )
    if isinstance(before, Polygon) and isinstance(after, Polygon):
        pairs = list(zip(before.parts_px, after.parts_px, strict=False))
        if list(map(len, before.parts_px)) == list(map(len, after.parts_px)):
            return Polygon(
                tuple(
                    tuple(_on_line(a, b, share) for a, b in zip(first, second, strict=True))
                    for first, second in pairs
                )
            )
    return before if share <= 0.5 else after


def _on_line(before: XY, after: XY, share: float) -> XY:
    return before[0] + (after[0] - before[0]) * share, before[1] + (after[1] - before[1]) * share


def _fit_box(box: Box, size_wh: SizeWH) -> tuple[Box | None, bool]:
    left, top, right, bottom = box.xyxy_px
    if 0 <= left < right <= size_wh[0] and 0 <= top < bottom <= size_wh[1]:
        return box, False
    inside = clip_box(box, size_wh)
    if inside is None:
        return None, False
    moved = (abs(a - b) for a, b in zip(box.xyxy_px, inside.xyxy_px, strict=True))
    return inside, max(moved) > _ROUNDING_PX


def _fit_polygon(polygon: Polygon, size_wh: SizeWH) -> tuple[Polygon | None, bool]:
    if len(polygon.parts_px) == 1:  # nearly all there are, and nearly all lie in the frame
        xs, ys = zip(*polygon.parts_px[0], strict=True)
        if min(xs) >= 0 and min(ys) >= 0 and max(xs) <= size_wh[0] and max(ys) <= size_wh[1]:
            return (polygon if abs(_area_px2(xs, ys)) > _NO_AREA_PX2 else None), False
    corners = [corner for part in polygon.parts_px for corner in part]
    if not all(math.isfinite(value) for corner in corners for value in corner):
        return None, False  # a share of the frame that overflowed
    left, top, right, bottom = bounds(corners).xyxy_px
    out = max(-left, -top, right - size_wh[0], bottom - size_wh[1])
    if out > 0:
        cut = (_cut_at_edges(part, size_wh) for part in polygon.parts_px)
        polygon = Polygon(tuple(part for part in cut if len(part) >= 3))
    return (polygon if has_area(polygon) else None), out > _ROUNDING_PX


def _cut_at_edges(corners: Sequence[XY], size_wh: SizeWH) -> tuple[XY, ...]:
    """Sutherland and Hodgman: one edge of the frame after the other."""
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
                share = (edge - here[axis]) / (there[axis] - here[axis])
                across = here[1 - axis] + share * (there[1 - axis] - here[1 - axis])
                kept.append((edge, across) if axis == 0 else (across, edge))
        corners = kept
    return tuple(corners)


def _fit_keypoints(shape: Keypoints, size_wh: SizeWH) -> tuple[Keypoints | None, bool]:
    points = tuple(point for point in shape.points if in_frame(point.xy_px, size_wh))
    extent, cut = fit(shape.extent, size_wh) if shape.extent is not None else (None, False)
    if not points and extent is None:
        return None, False
    assert extent is None or isinstance(extent, Box | Polygon | Mask)
    return Keypoints(points, extent), cut or len(points) < len(shape.points)
