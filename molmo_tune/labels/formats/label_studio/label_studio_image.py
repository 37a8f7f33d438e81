"""Label Studio's image regions: rectangles, polygons, ellipses, brush strokes, keypoints.

    {"type": "rectanglelabels", "id": "r1", "original_width": 640, "original_height": 480, "value":
     {"x": 10, "y": 20, "width": 5, "height": 5, "rotation": 0, "rectanglelabels": ["car"]}}

Coordinates: percent (0 to 100) of the image's width and height. The image must have the size
    ``original_width`` by ``original_height`` if the file states it.
Objects: a rectangle rotates clockwise about its *top left* corner, an ellipse about its center;
    rotated rectangles become polygons. A keypoint whose ``parentID`` is a rectangle is a named
    place on that object; any other keypoint is an object. Brush strokes become masks
    (`formats.label_studio._brush`).
Media: the image's name or URL; without one, the image named like the file or the only one there.
Skipped: relations, cancelled annotations, and all but the first of several annotations of a task
    (`formats.label_studio._tasks`, also for the layouts of the file).
Dropped: choices, texts and other results without coordinates; regions drawn on a rotated view of
    the image; second and further labels of a region.
Exhaustive labels: none.
Source: Label Studio's documentation of its tags, and its SDK.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

from molmo_tune.labels.formats.label_studio._brush import decode_brush
from molmo_tune.labels.formats.label_studio._tasks import Region, TaskAnnotation, read_annotations
from molmo_tune.labels.formats.label_studio.label_studio_video import NEGATIVE_SIDE, SECOND_LABEL
from molmo_tune.labels.geometry.masks import pack
from molmo_tune.labels.geometry.shapes import SizeWH, ellipse, in_frame, rotated_box
from molmo_tune.labels.image_objects import (
    DroppedRowError,
    Objects,
    corners_of,
    floats,
    open_objects,
    with_extensions,
)
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Keypoint, Keypoints, Mask, Point, Polygon, Sample, Shape
from molmo_tune.labels.tracks import NOT_A_NUMBER, OUTSIDE_FRAME

KINDS = ("rectangle", "polygon", "ellipse", "keypoint", "brush")
NO_COORDINATES = "result without coordinates"
RELATION = "relation between regions"
ROTATED_VIEW = "drawn on a rotated view of the image"
PARENT_DROPPED = "its parent rectangle was dropped"


def looks_like_label_studio_image(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    kinds = "|".join(KINDS)
    pattern = rf'"type"\s*:\s*"({kinds})(labels)?"|"({kinds})labels"\s*:\s*\['
    if head.lstrip()[:1] not in ("[", "{") or re.search(r'"(label_id|z_order)"\s*:', head):  # CVAT
        return False
    return bool(re.search(pattern, head))


def read_label_studio_image(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per annotated task, in file order.

    Args:
        path: the JSON file.
        media: the image or the folder of the images. For a URL, its last part is looked up; without
            a name, the image named like the file or the only one there.
        tally: counts every region by its first label.

    Raises:
        UserError: the file is not in one of Label Studio's layouts, or a name points outside the
            media folder.
    """
    tasks = read_annotations(path, tally)
    media.check_single_file(len(tasks), path)
    samples = (_sample(task, path, media, tally) for task in tasks)
    return [sample for sample in samples if sample is not None]


def _sample(task: TaskAnnotation, path: Path, media: MediaSource, tally: Tally) -> Sample | None:
    names = _names(task, path, media)
    objects = open_objects(media, names, task.place, _stated(task), tally)
    parents = {region.id: region for region in task.regions if _kind(region) == "rectangle"}
    children: dict[str, list[Region]] = {}
    for region in task.regions:
        if _kind(region) == "keypoint" and _parent(region) in parents:
            children.setdefault(_parent(region), []).append(region)
    for region in task.regions:
        is_parent = parents.get(region.id) is region
        if _kind(region) != "keypoint" or _parent(region) not in parents:
            _add(region, children.get(region.id, []) if is_parent else [], objects)
    return objects.sample()


def _names(task: TaskAnnotation, path: Path, media: MediaSource) -> list[str]:
    """Return possible names of the image; a URL can lack an extension."""
    names = list(task.names) or [path.stem]
    found = [full for name in names for full in with_extensions(name)]
    images = [] if task.names else media.images()
    return [*found, *([images[0].name] if len(images) == 1 else [])]


def _stated(task: TaskAnnotation) -> SizeWH | None:
    for region in task.regions:
        width, height = (region.result.get(f"original_{side}") for side in ("width", "height"))
        if type(width) is int and type(height) is int and width > 0 and height > 0:
            return width, height
    return None


def _kind(region: Region) -> str:
    return region.kind.removesuffix("labels")


def _parent(region: Region) -> str:
    return str(region.result.get("parentID") or "")


def _add(region: Region, children: list[Region], objects: Objects) -> None:
    kind, label = _kind(region), region.labels[0] if region.labels else ""
    if kind not in KINDS:
        if kind == "relation":
            objects.read(label, kind).skip(RELATION, region.place)
        else:
            objects.drop(label, kind, region.place, NO_COORDINATES)
        return
    for _ in region.labels[1:]:
        objects.drop(label, kind, region.place, SECOND_LABEL)
    points: list[Keypoint | str] = []

    def make(size_wh: SizeWH) -> Shape:
        shape = _shape(region, size_wh)
        if kind == "rectangle" and min(_values(region, "width", "height")) < 0:
            objects.corrected(label, kind, NEGATIVE_SIDE, region.place)
        points.extend(_keypoint(child, size_wh) for child in children)
        valid = tuple(point for point in points if isinstance(point, Keypoint))
        return Keypoints(valid, shape) if valid and isinstance(shape, Box | Polygon) else shape

    is_kept = objects.add(label, kind, region.place, make, region.id)
    for child, point in zip_longest(children, points):
        _count(child, point, is_kept, objects)


def _count(child: Region, point: Keypoint | str | None, is_kept: bool, objects: Objects) -> None:
    label = child.labels[0] if child.labels else ""
    if not is_kept or point is None:
        objects.drop(label, "keypoint", child.place, PARENT_DROPPED)
    elif isinstance(point, str):
        objects.drop(label, "keypoint", child.place, point)
    else:
        objects.read(label, "keypoint").keep()


def _keypoint(region: Region, size_wh: SizeWH) -> Keypoint | str:
    """Return the keypoint, or the reason to drop it."""
    try:
        shape = _shape(region, size_wh)
    except DroppedRowError as error:
        return str(error)
    assert isinstance(shape, Point)
    if not in_frame(shape.xy_px, size_wh):
        return OUTSIDE_FRAME
    return Keypoint(region.labels[0] if region.labels else "", shape.xy_px)


def _shape(region: Region, size_wh: SizeWH) -> Box | Polygon | Mask | Point:
    """Return the shape in pixels; rotation applies on the screen, so after the conversion."""
    if (region.result.get("image_rotation") or 0) != 0:
        raise DroppedRowError(ROTATED_VIEW)
    kind, (across, down) = _kind(region), (size_wh[0] / 100, size_wh[1] / 100)
    if kind == "polygon":
        points = region.value.get("points")
        flat = [v for pair in points for v in floats(pair, 2)] if isinstance(points, list) else []
        return Polygon((tuple((x * across, y * down) for x, y in corners_of(flat)),))
    if kind == "brush":
        return _brush(region, size_wh)
    x, y = _values(region, "x", "y")
    corner = (x * across, y * down)
    if kind == "keypoint":
        return Point(corner)
    degrees = floats([region.value.get("rotation") or 0])[0]
    if kind == "ellipse":
        radii = _values(region, "radiusX", "radiusY")
        return ellipse(corner, (abs(radii[0]) * across, abs(radii[1]) * down), degrees)
    width, height = _values(region, "width", "height")
    size = (width * across, height * down)
    if degrees % 360:
        return rotated_box(corner, size, degrees, "corner")
    right, bottom = corner[0] + size[0], corner[1] + size[1]
    xs, ys = sorted((corner[0], right)), sorted((corner[1], bottom))
    return Box((xs[0], ys[0], xs[1], ys[1]))


def _brush(region: Region, size_wh: SizeWH) -> Mask:
    rle = region.value.get("rle")
    if not isinstance(rle, list) or not all(type(v) is int and 0 <= v < 256 for v in rle):
        raise DroppedRowError(NOT_A_NUMBER)
    try:
        return pack(decode_brush(rle, size_wh))
    except ValueError as error:
        raise DroppedRowError(str(error)) from error


def _values(region: Region, *names: str) -> list[float]:
    return floats([region.value.get(name) for name in names])


READER = Reader(
    one_by_one(read_label_studio_image),
    looks_like_label_studio_image,
    "*.json",
    "Label Studio images (JSON with rectangles, polygons, keypoints, …)",
)
