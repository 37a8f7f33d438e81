"""Ground truth: the labels of an item as regions in which a point is a hit, at sampled times.

* Masks and polygons: the pixel to which the point rounds belongs to the object.
* Boxes: as labeled, clipped to the frame.
* Points: a disc of 2% of the frame diagonal (`grounding.pointing.disc_around`), so these scores are
  not comparable with the others.
* Keypoints: the region of the object's extent, if labeled; otherwise, or if the template asks for
  one keypoint, a disc around the point that represents the object.

The regions come from the same view of the labels as the training answers
(`molmo_tune.templates.visible`), with times rounded as answers write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from molmo_tune.encoding.items import Item
from molmo_tune.grounding.pointing import BoxRegion, MaskRegion, Region, disc_around
from molmo_tune.grounding.times import written_time
from molmo_tune.labels.geometry.points import DEFAULT_RULE, pixels_of, shape_point
from molmo_tune.labels.geometry.shapes import clip_box
from molmo_tune.labels.sample import Box, Instance, Keypoints, Mask, Point, Polygon, Shape
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.visible import VisibleTrack, visible_tracks

SizeWH = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PixelRegion:
    """A mask or polygon, packed until a point is tested."""

    shape: Mask | Polygon
    size_wh: SizeWH

    def contains(self, xy_px: tuple[float, float]) -> bool:
        """Return whether the nearest pixel (halves round to even) belongs to the object."""
        pixels, (left, top) = _pixels(self.shape, self.size_wh)
        return MaskRegion(pixels).contains((round(xy_px[0]) - left, round(xy_px[1]) - top))


_pixels = lru_cache(maxsize=256)(pixels_of)


def region_of(shape: Shape, size_wh: SizeWH, rule: str = DEFAULT_RULE) -> Region:
    """Return the region in which a point is a hit, in pixels of the original frame.

    Raises:
        ValueError: the rule gives no point for the shape, so it is not visible.
    """
    named = rule.startswith("keypoint:")
    if isinstance(shape, Keypoints) and shape.extent is not None and not named:
        return region_of(shape.extent, size_wh)
    if isinstance(shape, Mask | Polygon):
        return PixelRegion(shape, size_wh)
    if isinstance(shape, Box):
        clipped = clip_box(shape, size_wh) or shape
        return BoxRegion(clipped.xyxy_px)
    xy_px = shape.xy_px if isinstance(shape, Point) else shape_point(shape, size_wh, rule)
    if xy_px is None:
        raise ValueError(f"no point of {shape} for {rule}")
    return disc_around(xy_px, size_wh=size_wh)


def clip_of(item: Item) -> SampledTimes:
    """Return the sampled times of a video item.

    Raises:
        ValueError: the item is not a video.
    """
    if item.sampled is None:
        raise ValueError(f"{item.sample.id} is not a video")
    return item.sampled


def tracks_of(item: Item, label: str) -> list[VisibleTrack]:
    """Return the visible objects of a label."""
    return visible_tracks(item.sample, label, clip_of(item), item.template.point)


def regions_of(
    track: VisibleTrack, size_wh: SizeWH, rule: str = DEFAULT_RULE
) -> dict[float, Region]:
    """Return the region of an object by written time; of several sightings, the first."""
    regions: dict[float, Region] = {}
    for seen in track.sightings:
        regions.setdefault(written_time(seen.time_s), region_of(seen.shape, size_wh, rule))
    return regions


def shapes_on(item: Item, label: str, image_index: int) -> list[Shape]:
    """Return the visible shapes of a label on one image."""
    size = item.sizes_wh[image_index]
    return [
        note.shape
        for note in item.sample.annotations
        if isinstance(note, Instance)
        and (note.label, note.image_index) == (label, image_index)
        and shape_point(note.shape, size, item.template.point) is not None
    ]
