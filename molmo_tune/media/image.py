"""Image files → upright RGB arrays.

EXIF orientation is applied, as Ai2's trainer does (the native processor does not for images handed
to it in memory), and transparency is dropped, not blended, for the same reason.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from molmo_tune.errors import UserError

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 stand for a quarter turn
_TAIL_BYTES = 65_536  # in which a PNG says what it says after its pixels


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB picture ``(H, W, 3)``, upright.

    Raises:
        UserError: the file is missing or no image.
    """
    if not path.is_file():
        raise UserError(path, "no such image file", fix="check the media folder of the recipe")
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(path, f"not an image that opens ({error})") from error


def image_size(path: Path) -> tuple[int, int]:
    """Upright width and height, from the file's header alone.

    Raises:
        UserError: the file is missing, no image, or larger than Pillow takes for an honest one.
    """
    try:
        with Image.open(path) as image:
            exif = Image.Image.getexif(image) if _is_said_in_front(image, path) else image.getexif()
            turned = exif.get(_ORIENTATION, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(path, f"not an image that opens ({error})") from error


def _is_said_in_front(image: Image.Image, path: Path) -> bool:
    """Whether the orientation stands before the pixels, or nowhere: Pillow decodes a PNG to ask."""
    if image.format != "PNG" or "exif" in image.info:
        return True
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read()
    return b"eXIf" not in tail and b"com.adobe.xmp" not in tail
