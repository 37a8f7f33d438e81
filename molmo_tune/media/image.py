"""Image files → upright RGB arrays.

EXIF orientation is applied, as Ai2's trainer does (the native processor does not for images handed
to it in memory), and transparency is dropped, not blended, for the same reason. Of 16 bits the
upper eight are taken: Pillow's own conversion makes all but the darkest 255 of 65,536 grays white.
Of an animation the first picture is taken. Numbers without an agreed white are refused.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from molmo_tune.errors import UserError

THIN_PX = 112
"""A side up to this is thinner than the margins of the model's crops."""

_LARGEST_16_BIT = 65_535
_DAMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 stand for a quarter turn
_TAIL_BYTES = 65_536  # in which a PNG says what it says after its pixels
_SAID_IN = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB picture ``(H, W, 3)``, upright.

    Raises:
        UserError: the file is missing or no image.
    """
    if not path.is_file():
        raise UserError(path, "no such image file", fix="check the media folder of the recipe")
    try:
        with Image.open(path) as image:
            return np.array(_rgb(ImageOps.exif_transpose(image)))
    except _DAMAGE as error:
        raise UserError(path, f"not an image that opens ({error})") from error


def image_oddities(path: Path) -> list[str]:
    """What is unusual about an image that opens, and what becomes of it."""
    found = []
    with Image.open(path) as image:
        if image.has_transparency_data:
            found.append("is transparent, which is dropped: the colors underneath are shown")
        if image.mode.startswith("I"):
            found.append("has 16 bits, of which the upper eight are taken")
        if image.mode == "CMYK":
            found.append("is for print (CMYK), converted without its color profile")
        num_pictures = getattr(image, "n_frames", 1)
        if num_pictures > 1:
            found.append(f"has {num_pictures} pictures, of which the first is taken")
        if min(image.size) <= THIN_PX:
            found.append(f"is thin ({image.width}x{image.height}) and will be enlarged")
    return found


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.array(image)
        if levels.min() < 0 or levels.max() > _LARGEST_16_BIT:
            raise ValueError("whole numbers of more than 16 bits, which have no agreed white")
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point numbers, which have no agreed white")
    return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Upright width and height, from the file's header alone.

    Raises:
        UserError: the file is missing, no image, or larger than Pillow takes for an honest one.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if _is_turned(image) else (width, height)
    except _DAMAGE as error:
        raise UserError(path, f"not an image that opens ({error})") from error


def _is_turned(image: ImageFile.ImageFile) -> bool:
    """Whether the camera lay on its side. Pillow decodes a whole PNG to answer that."""
    if image.format == "PNG" and not _SAID_IN.intersection(image.info):
        if not _is_said_behind(image):
            return False
        image.load()
    return Image.Image.getexif(image).get(_ORIENTATION, 1) in (5, 6, 7, 8)


def _is_said_behind(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG says something of its orientation after its pixels."""
    file = image.fp
    assert file is not None
    place = file.tell()
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    tail = file.read()
    file.seek(place)
    return b"eXIf" in tail or b"com.adobe.xmp" in tail
