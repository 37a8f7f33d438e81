"""Where a point counts as a hit: the labels of an item as regions at the moments the model saw.

Masks and polygons count by the pixel to which a point rounds, boxes as they are drawn, clipped to
the frame; labels that are only points as a disc of 2 % of the frame's diagonal
(`grounding.pointing.disc_around`), so scores on these are not comparable. Named points count by the
extent of their object where it was drawn, else, like a template that asks for one of them, as a
disc around the point that stands for the object.
Truth comes from the same view of the labels that training answers are made of
(`molmo_tune.templates.visible`), with times as answers spell them.
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
    """A mask or polygon; it is kept packed until a point is asked about."""

    shape: Mask | Polygon
    size_wh: SizeWH

    def contains(self, xy_px: tuple[float, float]) -> bool:
        """Whether the nearest pixel (halves to even) belongs to the object."""
        pixels, (left, top) = _pixels(self.shape, self.size_wh)
        return MaskRegion(pixels).contains((round(xy_px[0]) - left, round(xy_px[1]) - top))


_pixels = lru_cache(maxsize=256)(pixels_of)


def region_of(shape: Shape, size_wh: SizeWH, rule: str = DEFAULT_RULE) -> Region:
    """Where a point counts as a hit, in pixels of the frame.

    Raises:
        ValueError: the rule gives the shape no point, so that it is not to be seen.
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
    """What was seen of a video.

    Raises:
        ValueError: the item is no video.
    """
    if item.sampled is None:
        raise ValueError(f"{item.sample.id} is no video")
    return item.sampled


def tracks_of(item: Item, label: str) -> list[VisibleTrack]:
    """The objects of a label that are to be seen; none for a label that is absent."""
    return visible_tracks(item.sample, label, clip_of(item), item.template.point)


def regions_of(
    track: VisibleTrack, size_wh: SizeWH, rule: str = DEFAULT_RULE
) -> dict[float, Region]:
    """The region of an object at every written time that shows it, the first sighting of each."""
    regions: dict[float, Region] = {}
    for seen in track.sightings:
        regions.setdefault(written_time(seen.time_s), region_of(seen.shape, size_wh, rule))
    return regions


def shapes_on(item: Item, label: str, image_index: int) -> list[Shape]:
    """The objects of a label on one image."""
    size = item.sizes_wh[image_index]
    return [
        note.shape
        for note in item.sample.annotations
        if isinstance(note, Instance)
        and (note.label, note.image_index) == (label, image_index)
        and shape_point(note.shape, size, item.template.point) is not None
    ]
