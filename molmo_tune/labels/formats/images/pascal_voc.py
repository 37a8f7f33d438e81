"""Pascal VOC: an XML file per image with boxes, and a PNG of instances if there is one.

    <annotation><filename>a.jpg</filename><size><width>640</width><height>480</height></size>
      <object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>
      </bndbox></object></annotation>

Boxes: pixels, read as they are. They count from 1 in the original dataset and from 0 in many
    exports, without any mark, so a point can be one pixel off.
Masks: the PNG of the same name in ``SegmentationObject``, next to the folder of the XML. Pixels of
    value n are the n-th object, 255 is the border between objects; the palette is ignored.
Media: the image is named like ``filename``, else like the XML file, ignoring case. A size of 0 by
    0 counts as unknown.
Noted: parts of objects (head, hand), which are not read.
Exhaustive labels: none; the original dataset has every object of its 20 classes, but exports of
    other datasets look the same.
Source: the development kit of VOC2012.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from molmo_tune.errors import UserError
from molmo_tune.labels.files.xml import Node, read_xml
from molmo_tune.labels.geometry.masks import pack
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import (
    DroppedRowError,
    Objects,
    corners_of,
    open_objects,
    spelled,
    stated_size,
)
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Mask, Polygon, Sample, Shape

SWAPPED = "a box with swapped corners"
PARTS = "parts of objects are not read"
OTHER_PNG_SIZE = "the PNG of instances differs in size from the image"


def looks_like_pascal_voc(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return bool(re.search(r"<annotation\b", head) and re.search(r"<(object|filename|size)>", head))


def read_pascal_voc(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, as a list of at most one.

    Raises:
        UserError: the file is not XML of this format, or a name points outside the media folder.
    """
    root = read_xml(path)
    if root.tag != "annotation":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "<annotation>")
    texts = (root.text_at("size", side) for side in ("width", "height"))
    size = stated_size(*(int(t) if t.isdecimal() and len(t) < 10 else None for t in texts))
    named = [root.text_at("filename")] if root.text_at("filename") else []
    names = [*named, *(path.stem + suffix for suffix in IMAGE_SUFFIXES)]
    objects = open_objects(media, names, f"{path}:{root.line}", size, tally)
    instances = _instances(path)
    for number, node in enumerate(root.all("object"), 1):
        _add(node, number, instances, objects, path, tally)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _instances(path: Path) -> NDArray[np.uint8] | None:
    """Return the object numbers in the PNG of instances, or None without one."""
    png = path.parent.parent / "SegmentationObject" / f"{path.stem}.png"
    if not png.is_file():
        return None
    try:
        with Image.open(png) as image:
            if image.mode not in ("P", "L"):
                found = f"an image of mode {image.mode}"
                raise UserError(png, found, "instance numbers (a palette or gray PNG)")
            return np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(png, f"not an image that opens ({error})") from error


def _add(
    node: Node,
    number: int,
    instances: NDArray[np.uint8] | None,
    objects: Objects,
    path: Path,
    tally: Tally,
) -> None:
    place, label = f"{path}:{node.line}", node.text_at("name")
    if node.at("part") is not None:
        tally.note(PARTS, place)
    if instances is not None and (instances == number).any():

        def make(size_wh: SizeWH) -> Shape:
            return _mask(instances, number, size_wh)

        objects.add(label, "mask", place, make, str(number))
    else:
        kind = "polygon" if node.at("polygon") is not None else "box"
        objects.add(label, kind, place, lambda _: _shape(node), str(number))


def _mask(instances: NDArray[np.uint8], number: int, size_wh: SizeWH) -> Mask:
    if instances.shape != size_wh[::-1]:
        raise DroppedRowError(OTHER_PNG_SIZE)
    return pack(instances == number)


def _shape(node: Node) -> Shape:
    polygon = node.at("polygon")
    if polygon is not None:  # as Roboflow writes it: <x1>, <y1>, <x2>, …
        return Polygon((corners_of(spelled(child.text for child in polygon.children)),))
    sides = ("xmin", "ymin", "xmax", "ymax")
    left, top, right, bottom = spelled(node.text_at("bndbox", side) or "none" for side in sides)
    if right < left or bottom < top:
        raise DroppedRowError(SWAPPED)
    return Box((left, top, right, bottom))


READER = Reader(
    one_by_one(read_pascal_voc),
    looks_like_pascal_voc,
    "*.xml",
    "Pascal VOC (XML with <annotation>, one file per image)",
)
