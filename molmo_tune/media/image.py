"""Image files as upright RGB arrays.

EXIF orientation is applied, as in Ai2's trainer (the native processor does not apply it to images
passed in memory), and transparency is dropped, not blended, for the same reason. Of 16-bit images
the upper 8 bits are used: Pillow's own conversion turns all but the darkest 255 of 65,536 grays
white. Of an animation the first frame is used. Pixel types without a defined white are refused.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from molmo_tune.errors import UserError

THIN_PX = 112
"""Largest side, in pixels, that is still thinner than the margins of the model's crops."""

_LARGEST_16_BIT = 65_535
_DAMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 mean a quarter turn
_TAIL_BYTES = 65_536  # searched for metadata after the pixels of a PNG
_EXIF_KEYS = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return an image as RGB ``(H, W, 3)``, upright.

    Raises:
        UserError: the file is missing or not an image.
    """
    if not path.is_file():
        raise UserError(path, "no such image file", fix="check the media path")
    try:
        with Image.open(path) as image:
            return np.array(_rgb(ImageOps.exif_transpose(image)))
    except _DAMAGE as error:
        raise UserError(path, f"not an image that opens ({error})") from error


def image_oddities(path: Path) -> list[str]:
    """Return what is unusual about an image that opens, and how it is read."""
    found = []
    with Image.open(path) as image:
        if image.has_transparency_data:
            found.append("is transparent; transparency is dropped, the colors underneath are used")
        if image.mode.startswith("I"):
            found.append("is 16-bit; the upper 8 bits are used")
        if image.mode == "CMYK":
            found.append("is CMYK; its color profile is not applied")
        num_frames = getattr(image, "n_frames", 1)
        if num_frames > 1:
            found.append(f"has {num_frames} frames; the first is used")
        if min(image.size) <= THIN_PX:
            found.append(f"is thin ({image.width}x{image.height}); it is enlarged")
    return found


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.array(image)
        if levels.min() < 0 or levels.max() > _LARGEST_16_BIT:
            raise ValueError("integers of more than 16 bits, without a defined white")
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point numbers, without a defined white")
    return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Return upright width and height in pixels, from the file's header alone.

    Raises:
        UserError: the file is missing, not an image, or exceeds Pillow's limit of pixels.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if _is_quarter_turned(image) else (width, height)
    except _DAMAGE as error:
        raise UserError(path, f"not an image that opens ({error})") from error


def _is_quarter_turned(image: ImageFile.ImageFile) -> bool:
    """Whether EXIF states a quarter turn; Pillow decodes a complete PNG to find out."""
    if image.format == "PNG" and not _EXIF_KEYS.intersection(image.info):
        if not _has_trailing_exif(image):
            return False
        image.load()
    return Image.Image.getexif(image).get(_ORIENTATION, 1) in (5, 6, 7, 8)


def _has_trailing_exif(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG has EXIF or XMP metadata after its pixels."""
    file = image.fp
    assert file is not None
    position = file.tell()
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    tail = file.read()
    file.seek(position)
    return b"eXIf" in tail or b"com.adobe.xmp" in tail
