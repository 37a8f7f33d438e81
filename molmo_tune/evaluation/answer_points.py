"""The points of an answer about an item, whatever its medium: one reading for scores and pictures.

A video's points have times, those on images the image's number from 1, also where there is only one
image. A truncated answer is read as far as its points are whole.
"""

from __future__ import annotations

from molmo_tune.encoding.items import Item
from molmo_tune.grounding.text import ParsedPoint, parse_multi_image_points, parse_points


def points_of(item: Item, text: str) -> list[ParsedPoint]:
    """Points in pixels; ``frame_id`` is seconds, or the image's number. A text has none."""
    if item.sampled is not None:
        return parse_points(text, size_wh=item.sampled.size_wh, tolerant=True)
    if len(item.sizes_wh) > 1:
        return parse_multi_image_points(text, sizes_wh=item.sizes_wh, tolerant=True)
    if not item.sizes_wh:
        return []
    points = parse_points(text, size_wh=item.sizes_wh[0], tolerant=True)
    return [point._replace(frame_id=1.0) for point in points]
