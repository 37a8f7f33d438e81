"""The point that represents a shape.

The template's ``point`` selects the rule:

``interior``        the default: a point that is always inside the object and moves little from
                    frame to frame. Masks and polygons: the pixel nearest the centroid among those
                    whose distance to the border is at least a quarter of the largest distance.
                    Boxes: the center of their part in the frame. Keypoints without an extent: the
                    visible one nearest their mean.
``center``          the center of the bounding box around the visible part of the shape. In public
                    mask datasets, it misses the object in 10 to 35% of cases.
``random_in_mask``  any pixel of a mask or polygon, sampled by the seed, the sample and the object;
                    other shapes as ``interior``.
``keypoint:NAME``   the named keypoint, if it is known and visible.

On masks of public video datasets, the pixel of the default rule was inside in 100% of 1,492 frames
and nearly as steady as the centroid; the pixel farthest from the border moved up to four times as
much. A shape entirely outside the frame has no point: the object is not visible.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt

from molmo_tune.labels.geometry.masks import Pixels, fill, unpack
from molmo_tune.labels.geometry.shapes import SizeWH, bounds, clip_box, fit, in_frame
from molmo_tune.labels.sample import Box, Keypoints, Mask, Point, Polygon, Shape

XY = tuple[float, float]

DEFAULT_RULE = "interior"
RULES = r"^(center|interior|random_in_mask|keypoint:.+)$"
CORE_FRACTION = 0.25
_LARGEST_SIDE = 512  # pixels, of a mask's measured part; larger ones are subsampled


def shape_point(
    shape: Shape, size_wh: SizeWH, rule: str = DEFAULT_RULE, key: str = ""
) -> XY | None:
    """Return the point of a shape in pixels, or None if the shape is outside the frame.

    Args:
        shape: the shape, in pixels of the frame.
        size_wh: width and height of the frame in pixels.
        rule: see above.
        key: seed of a random point.
    """
    if rule.startswith("keypoint:"):
        return _named_keypoint(shape, size_wh, rule.removeprefix("keypoint:"))
    if isinstance(shape, Point):
        return shape.xy_px if in_frame(shape.xy_px, size_wh) else None
    if isinstance(shape, Box):
        clipped = clip_box(shape, size_wh)
        return _middle(clipped) if clipped is not None else None
    if isinstance(shape, Keypoints):
        if shape.extent is not None:
            return shape_point(shape.extent, size_wh, rule, key)
        return _central_keypoint(shape, size_wh)
    return _in_pixels(shape, size_wh, rule, key if rule == "random_in_mask" else "")


def pixels_of(shape: Mask | Polygon, size_wh: SizeWH) -> tuple[Pixels, tuple[int, int]]:
    """Return the pixels within the bounding box of a shape's visible part, and its left and top."""
    if isinstance(shape, Mask):
        return _cropped(unpack(shape))
    inside, _ = fit(shape, size_wh)
    if not isinstance(inside, Polygon):
        return np.zeros((0, 0), np.bool_), (0, 0)
    box = bounds([corner for part in inside.parts_px for corner in part]).xyxy_px
    left, top = int(box[0]), int(box[1])
    shifted = tuple(tuple((x - left, y - top) for x, y in part) for part in inside.parts_px)
    size = (min(int(box[2]) + 1, size_wh[0]) - left, min(int(box[3]) + 1, size_wh[1]) - top)
    return fill(Polygon(shifted), (max(size[0], 1), max(size[1], 1))), (left, top)


def interior_pixel(pixels: Pixels) -> tuple[int, int]:
    """Return column and row of the core pixel nearest the centroid; a pixel must be set."""
    step = -(-max(pixels.shape) // _LARGEST_SIDE)
    subsampled = pixels[::step, ::step] if step > 1 else pixels
    if not subsampled.any():
        subsampled, step = pixels, 1
    depth = distance_transform_edt(np.pad(subsampled, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= CORE_FRACTION * depth.max())
    all_rows, all_columns = np.nonzero(subsampled)
    distances = (rows - all_rows.mean()) ** 2 + (columns - all_columns.mean()) ** 2
    nearest = int(np.argmin(distances))
    return int(columns[nearest]) * step, int(rows[nearest]) * step


@lru_cache(maxsize=65536)
def _in_pixels(shape: Mask | Polygon, size_wh: SizeWH, rule: str, key: str) -> XY | None:
    pixels, (left, top) = pixels_of(shape, size_wh)
    if not pixels.any():
        return _point_of_sliver(shape, size_wh)
    if rule == "center":
        rows, columns = np.nonzero(pixels)
        return (
            left + float(columns.min() + columns.max()) / 2,
            top + float(rows.min() + rows.max()) / 2,
        )
    if rule == "random_in_mask":
        rows, columns = np.nonzero(pixels)
        number = random.Random(key).randrange(len(rows))
        return left + float(columns[number]), top + float(rows[number])
    column, row = interior_pixel(pixels)
    return float(left + column), float(top + row)


def _point_of_sliver(shape: Mask | Polygon, size_wh: SizeWH) -> XY | None:
    """Return the middle of a polygon that is too thin to fill a pixel."""
    inside, _ = fit(shape, size_wh) if isinstance(shape, Polygon) else (None, False)
    if not isinstance(inside, Polygon):
        return None
    return _middle(bounds([corner for part in inside.parts_px for corner in part]))


def _cropped(pixels: Pixels) -> tuple[Pixels, tuple[int, int]]:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return np.zeros((0, 0), np.bool_), (0, 0)
    crop = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return crop, (int(columns[0]), int(rows[0]))


def _middle(box: Box) -> XY:
    left, top, right, bottom = box.xyxy_px
    return (left + right) / 2, (top + bottom) / 2


def _named_keypoint(shape: Shape, size_wh: SizeWH, name: str) -> XY | None:
    points = shape.points if isinstance(shape, Keypoints) else ()
    found = next((p for p in points if p.name == name and p.visible), None)
    return found.xy_px if found is not None and in_frame(found.xy_px, size_wh) else None


def _central_keypoint(shape: Keypoints, size_wh: SizeWH) -> XY | None:
    """Return the visible keypoint nearest the mean of the visible ones."""
    points = [p.xy_px for p in shape.points if p.visible and in_frame(p.xy_px, size_wh)]
    if not points:
        return None
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return min(points, key=lambda point: (point[0] - x) ** 2 + (point[1] - y) ** 2)
