"""Pointing scores: whether each predicted point hits an object of its own.

The rule is Ai2's (PixMo pointing and Molmo 2 video pointing): predictions are matched one to one to
ground-truth *points* by distance, and a pair counts if the prediction is in the *region* of the
matched object. There is no distance threshold; the region decides. A region is anything with
``contains(xy_px)``: a mask, a box, an ellipse, or, for datasets that only have points, a disc
around a point (`disc_around`; report such scores as not comparable with mask scores).

All coordinates are pixels of the original image or frame, all times are seconds.

Limitations: parses no text, reads no images, and does not average over kinds of samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

XY = tuple[float, float]
TXY = tuple[float, float, float]


class Region(Protocol):
    """The extent of one object."""

    def contains(self, xy_px: XY) -> bool:
        """Return whether the object contains the point (pixels)."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskRegion:
    """A mask of shape (height, width); a point belongs to the nearest pixel (halves to even)."""

    mask: NDArray[np.bool_]

    def contains(self, xy_px: XY) -> bool:
        """Return whether the nearest pixel is set; False outside the mask."""
        column, row = round(xy_px[0]), round(xy_px[1])
        height, width = self.mask.shape
        return 0 <= column < width and 0 <= row < height and bool(self.mask[row, column])


@dataclass(frozen=True, slots=True)
class BoxRegion:
    """A box ``(left, top, right, bottom)`` in pixels, edges included."""

    xyxy_px: tuple[float, float, float, float]

    def contains(self, xy_px: XY) -> bool:
        """Return whether the point is in the box or on its edge."""
        left, top, right, bottom = self.xyxy_px
        return left <= xy_px[0] <= right and top <= xy_px[1] <= bottom


@dataclass(frozen=True, slots=True)
class EllipseRegion:
    """An axis-aligned ellipse, edge included; a disc when both radii are equal."""

    center_px: XY
    radii_px: XY

    def contains(self, xy_px: XY) -> bool:
        """Return whether the point is in the ellipse or on its edge."""
        x = (xy_px[0] - self.center_px[0]) / self.radii_px[0]
        y = (xy_px[1] - self.center_px[1]) / self.radii_px[1]
        return x * x + y * y <= 1.0

    @classmethod
    def in_box(cls, xyxy_px: tuple[float, float, float, float]) -> EllipseRegion:
        """Return the ellipse inscribed in a box, which approximates a mask better than the box.

        Radii are at least half a pixel, so that a box of width 0 can be hit.
        """
        left, top, right, bottom = xyxy_px
        center = ((left + right) / 2, (top + bottom) / 2)
        return cls(center, (max(0.5, (right - left) / 2), max(0.5, (bottom - top) / 2)))


def disc_around(
    xy_px: XY,
    *,
    object_area_px2: float | None = None,
    size_wh: tuple[float, float] | None = None,
    of_object: float = 0.5,
    of_diagonal: float = 0.02,
) -> EllipseRegion:
    """Return a region for an object with a labeled point and no extent.

    Args:
        xy_px: the labeled point.
        object_area_px2: area of the object, if known. The radius is ``of_object`` times its
            square root, so that a square object's disc reaches its sides.
        size_wh: image size in pixels, used otherwise. The radius is ``of_diagonal`` times the
            diagonal (16 px at 640×480).

    Raises:
        ValueError: neither size is given, or the radius is not positive.
    """
    if object_area_px2 is not None:
        radius = of_object * math.sqrt(object_area_px2)
    elif size_wh is not None:
        radius = of_diagonal * math.hypot(*size_wh)
    else:
        raise ValueError("disc_around needs object_area_px2 or size_wh")
    if not radius > 0:
        raise ValueError(f"disc_around: radius {radius} px is not positive")
    return EllipseRegion(xy_px, (radius, radius))


@dataclass(frozen=True, slots=True)
class PointingScore:
    """Precision, recall and F1 of one sample (0 to 1), and their counts."""

    precision: float
    recall: float
    f1: float
    num_hits: int
    num_predicted: int
    num_objects: int


def f1_of(precision: float, recall: float) -> float:
    """Return the harmonic mean, with Ai2's 1e-10 in the denominator; 0 if either is 0."""
    if precision == 0 or recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall + 1e-10)


def score_hits(num_hits: int, num_predicted: int, num_objects: int) -> PointingScore:
    """Return the score of these counts; 1 if there is neither object nor prediction."""
    if num_objects == 0 or num_predicted == 0:
        value = float(num_objects == num_predicted)
        return PointingScore(value, value, value, 0, num_predicted, num_objects)
    precision, recall = num_hits / num_predicted, num_hits / num_objects
    f1 = f1_of(precision, recall)
    return PointingScore(precision, recall, f1, num_hits, num_predicted, num_objects)


def match_by_distance(
    predicted: Sequence[Sequence[float]], ground_truth: Sequence[Sequence[float]]
) -> list[tuple[int, int]]:
    """Return the pairs (prediction, ground truth) with the smallest total distance, by index."""
    if len(predicted) == 0 or len(ground_truth) == 0:
        return []
    rows, columns = linear_sum_assignment(cdist(np.asarray(predicted), np.asarray(ground_truth)))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def score_image_pointing(
    predicted: Sequence[XY], ground_truth: Sequence[XY], regions: Sequence[Region]
) -> PointingScore:
    """Score the points predicted on one image.

    Args:
        predicted: points in pixels.
        ground_truth: one labeled point per object, in pixels; used for matching only.
        regions: the extent of each object, in the same order; decides whether a match counts.

    Raises:
        ValueError: points and regions differ in number.
    """
    if len(ground_truth) != len(regions):
        raise ValueError(f"{len(ground_truth)} ground-truth points but {len(regions)} regions")
    pairs = match_by_distance(predicted, ground_truth)
    hits = sum(regions[j].contains(predicted[i]) for i, j in pairs)
    return score_hits(hits, len(predicted), len(regions))


def score_video_pointing(
    predicted: Sequence[TXY],
    ground_truth: Sequence[TXY],
    objects: Sequence[Mapping[float, Region]],
    *,
    duration_s: float,
    size_wh: tuple[float, float],
) -> PointingScore:
    """Score the points predicted in one video, each with its time.

    Args:
        predicted: (seconds, x, y in pixels).
        ground_truth: one labeled (seconds, x, y) per object; used for matching only.
        objects: for each object, its region at every time it is visible. A prediction counts only
            if its time *equals* one of these times, so use the times that answers can state.
        duration_s: length of the video in seconds; ``size_wh`` is its size in pixels. For matching,
            each axis is scaled to 0 to 100 and rounded to one decimal.

    Raises:
        ValueError: points and objects differ in number.
    """
    if len(ground_truth) != len(objects):
        raise ValueError(f"{len(ground_truth)} ground-truth points but {len(objects)} objects")
    extent = (duration_s, *size_wh)

    def scaled(points: Sequence[TXY]) -> list[list[float]]:
        return [[round(v / e * 100, 1) for v, e in zip(p, extent, strict=True)] for p in points]

    hits = 0
    for i, j in match_by_distance(scaled(predicted), scaled(ground_truth)):
        time_s, x, y = predicted[i]
        region = objects[j].get(time_s)
        hits += region is not None and region.contains((x, y))
    return score_hits(hits, len(predicted), len(objects))


def is_pointbench_correct(predicted: Sequence[XY], region: Region) -> bool:
    """Return whether an answer is correct in PointBench.

    It has at least one point, and the region contains all points, truncated to whole pixels.
    """
    return len(predicted) > 0 and all(region.contains((int(x), int(y))) for x, y in predicted)


def is_screenspot_correct(predicted: Sequence[XY], xyxy_px: tuple[float, ...]) -> bool:
    """Return whether the box ``(left, top, right, bottom)`` (pixels) contains the first point.

    This is the rule of ScreenSpot.
    """
    left, top, right, bottom = xyxy_px
    return len(predicted) > 0 and BoxRegion((left, top, right, bottom)).contains(predicted[0])


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over samples, with its 95% bootstrap confidence interval."""

    mean: float
    low: float
    high: float
    num_samples: int


def mean_with_interval(
    values: Sequence[float] | NDArray[Any], *, seed: int = 0, num_resamples: int = 2000
) -> Mean:
    """Return the mean of per-sample scores, with a percentile bootstrap over samples.

    Args:
        values: one score per sample; samples are drawn with replacement.
        seed: seed of the resampling, so that a report is reproducible.
        num_resamples: number of bootstrap resamples.

    Raises:
        ValueError: there are no values.
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("a mean needs at least one sample")
    rng = np.random.default_rng(seed)
    means = np.array(
        [array[rng.integers(0, array.size, array.size)].mean() for _ in range(num_resamples)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Mean(float(array.mean()), float(low), float(high), int(array.size))
