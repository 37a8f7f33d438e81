"""CVAT for images 1.1: one XML file, an ``<image>`` element with its shapes per image.

    <image id="0" name="a.jpg" subset="train" width="640" height="480">
      <box label="car" xtl="3" ytl="4" xbr="10" ybr="5" rotation="30" occluded="0"/>
      <polygon label="car" points="1,1;5,1;5,5"/>
      <mask label="car" rle="3, 5, …" left="7" top="8" width="13" height="15"/>
      <skeleton label="cat"><points label="nose" points="4,5" outside="0" occluded="0"/></skeleton>

Coordinates: pixels, origin at the top left.
Objects: rotated boxes and ellipses, clockwise about their center, become polygons. A mask's runs go
    row by row through its own box, zeros first. A skeleton's point is absent if ``outside`` and
    hidden if ``occluded``.
Media: the image's ``name``, looked up in the folder ``subset`` first. ``<meta>`` is not read.
Skipped: skeletons whose points are all outside.
Dropped: polylines and cuboids, which have no interior; tags, which describe the whole image;
    ``<points>`` with several points, which are ambiguous (several objects, or one with landmarks).
    Attribute values are not kept.
Exhaustive labels: none.
Source: CVAT manual, "XML annotation format".
"""

from __future__ import annotations

import re
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.xml import Node, read_xml
from molmo_tune.labels.formats.cvat._shapes import (
    has_swapped_corners,
    kind_of_node,
    present_points,
    shape_of_node,
)
from molmo_tune.labels.formats.cvat.cvat_video import ATTRIBUTES, SWAPPED_CORNERS
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import (
    ABSENT,
    Objects,
    open_objects,
    stated_size,
)
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample

WHOLE_IMAGE = "tag of the whole image"


def looks_like_cvat_images(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    return bool(re.search(r"<annotations\b", head) and re.search(r"<image\s", head))


def read_cvat_images(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per image with objects, in file order.

    Raises:
        UserError: the file is not CVAT XML, or a name points outside the media folder.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "<annotations> of CVAT")
    images = list(root.all("image"))
    media.check_single_file(len(images), path)
    samples = (_sample(image, path, media, tally) for image in images)
    return [sample for sample in samples if sample is not None]


def _sample(image: Node, path: Path, media: MediaSource, tally: Tally) -> Sample | None:
    name, subset = image.attributes.get("name", ""), image.attributes.get("subset", "")
    size = _stated(image)
    names = [f"{subset}/{name}", name] if subset and name else [name] if name else []
    objects = open_objects(media, names, f"{path}:{image.line}", size, tally)
    for node in image.children:
        add_node(node, objects, f"{path}:{node.line}", tally)
    return objects.sample()


def _stated(image: Node) -> SizeWH | None:
    texts = [image.attributes.get(name, "") for name in ("width", "height")]
    return stated_size(*(int(t) if t.isdecimal() and len(t) < 10 else None for t in texts))


def add_node(node: Node, objects: Objects, place: str, tally: Tally) -> None:
    """Add an element of an image."""
    label = node.attributes.get("label", "").strip()
    kind = kind_of_node(node)
    if any(child.tag == "attribute" for child in node.children):
        tally.note(ATTRIBUTES, place)
    if kind == "tag":
        objects.drop(label, kind, place, WHOLE_IMAGE)
    elif kind == "skeleton" and not present_points(node):
        objects.skip(label, kind, place, ABSENT)
    else:
        if kind == "box" and has_swapped_corners(node):
            objects.corrected(label, kind, SWAPPED_CORNERS, place)
        objects.add(label, kind, place, lambda size_wh: shape_of_node(node, kind, size_wh))


READER = Reader(
    one_by_one(read_cvat_images),
    looks_like_cvat_images,
    "*.xml",
    "CVAT for images 1.1 (XML with <image>)",
)
