"""The points of an answer to an item, parsed in one way for scores and for drawings.

Points in a video have times; points on images have the number of the image, from 1, even if there
is only one. A truncated answer is parsed up to its last complete point.
"""

from __future__ import annotations

from molmo_tune.encoding.items import Item
from molmo_tune.grounding.text import ParsedPoint, parse_multi_image_points, parse_points


def points_of(item: Item, text: str) -> list[ParsedPoint]:
    """Return points in pixels of the original media; none for an item without media.

    ``frame_id`` is the time in seconds, or the number of the image.
    """
    if item.sampled is not None:
        return parse_points(text, size_wh=item.sampled.size_wh, tolerant=True)
    if len(item.sizes_wh) > 1:
        return parse_multi_image_points(text, sizes_wh=item.sizes_wh, tolerant=True)
    if not item.sizes_wh:
        return []
    points = parse_points(text, size_wh=item.sizes_wh[0], tolerant=True)
    return [point._replace(frame_id=1.0) for point in points]
