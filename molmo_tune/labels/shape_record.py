"""A shape as plain JSON keys, and back: `format_shape` and `parse_shape`.

The record of an object has one shape, under one of these keys:

    point      [x, y]
    box        [left, top, right, bottom]
    polygon    list of parts, each a list of at least three [x, y]
    mask       {"counts": text, "size_hw": [height, width]}: COCO's compressed run lengths, which
               must cover the image exactly
    keypoints  list of {"name": text, "xy": [x, y], ["visible": false]}; next to it, the record may
               have the object's extent: a box, a polygon or a mask

All are in pixels of the frame. ``parse_shape`` of the keys that ``format_shape`` wrote returns an
equal shape.
"""

from __future__ import annotations

from molmo_tune.labels.files.strict_json import JsonObject
from molmo_tune.labels.geometry.masks import runs_of
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Mask, Media, Point, Polygon, Shape

SHAPE_KEYS = ("point", "box", "polygon", "mask", "keypoints")
_EXTENTS = ("box", "polygon", "mask")


def format_shape(shape: Shape) -> dict[str, object]:
    """Return the JSON keys of a shape."""
    if isinstance(shape, Point):
        return {"point": shape.xy_px}
    if isinstance(shape, Box):
        return {"box": shape.xyxy_px}
    if isinstance(shape, Polygon):
        return {"polygon": shape.parts_px}
    if isinstance(shape, Mask):
        return {"mask": {"counts": shape.counts, "size_hw": shape.size_hw}}
    extent = format_shape(shape.extent) if shape.extent is not None else {}
    points = [
        {"name": p.name, "xy": p.xy_px, **({} if p.visible else {"visible": False})}
        for p in shape.points
    ]
    return {"keypoints": points, **extent}


def parse_shape(part: JsonObject, media: Media) -> Shape:
    """Return the shape of a record, in pixels.

    Args:
        part: the record with the keys.
        media: media of the shape; a mask must have its size, if known.

    Raises:
        UserError: no shape, several shapes, or an invalid one.
    """
    given = [key for key in SHAPE_KEYS if key in part.values]
    if "keypoints" in given and len(given) <= 2 and "point" not in given:
        points = tuple(_keypoint(value, part) for value in part.items("keypoints"))
        return Keypoints(points, _extent(part, media))
    if len(given) != 1:
        found = f"{part.name} has {' and '.join(given)}" if given else f"{part.name} has no shape"
        raise part.error(found, f"one of {', '.join(SHAPE_KEYS)}")
    if given == ["point"]:
        x, y = part.numbers("point", 2)
        return Point((x, y))
    extent = _extent(part, media)
    assert extent is not None
    return extent


def _extent(part: JsonObject, media: Media) -> Box | Polygon | Mask | None:
    if "box" in part.values:
        return _box(part)
    if "polygon" in part.values:
        return Polygon(tuple(_corners(value, part) for value in part.items("polygon")))
    return _mask(part, media) if "mask" in part.values else None


def _box(part: JsonObject) -> Box:
    left, top, right, bottom = part.numbers("box", 4)
    if right < left or bottom < top:
        part.reject("box", "left <= right and top <= bottom")
    return Box((left, top, right, bottom))


def _corners(value: object, part: JsonObject) -> tuple[tuple[float, float], ...]:
    expected = "a list of parts, each at least three [x, y]"
    if not isinstance(value, list) or len(value) < 3:
        part.reject("polygon", expected)
    pairs = [JsonObject({"corner": xy}, "polygon", part.where).numbers("corner", 2) for xy in value]
    return tuple((x, y) for x, y in pairs)


def _mask(part: JsonObject, media: Media) -> Mask:
    inner = JsonObject.of(part.values["mask"], "mask", ("counts", "size_hw"), part.where)
    height, width = inner.numbers("size_hw", 2)
    if min(height, width) < 1 or height != int(height) or width != int(width):
        inner.reject("size_hw", "two integers of at least 1")
    if media.size_wh is not None and media.size_wh != (int(width), int(height)):
        inner.reject("size_hw", f"the media size, {list(media.size_wh[::-1])}")
    mask = Mask(inner.text("counts"), (int(height), int(width)))
    try:
        runs_of(mask)
    except ValueError as error:
        raise inner.error(f"mask.counts: {error}", "COCO's compressed run lengths") from error
    return mask


def _keypoint(value: object, part: JsonObject) -> Keypoint:
    inner = JsonObject.of(value, "keypoint", ("name", "xy", "visible"), part.where)
    x, y = inner.numbers("xy", 2)
    is_visible = inner.flag("visible") if "visible" in inner.values else True
    return Keypoint(inner.text("name"), (x, y), is_visible)
