"""Frames with points drawn on them, as data URIs that a page carries inside itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PICTURE_WIDTH = 240
JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Mark:
    """A point to draw: pixels of the original frame, a CSS colour, and a short text or none."""

    xy_px: tuple[float, float]
    color: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """A box to draw: pixels of the original frame and a CSS colour."""

    xyxy_px: tuple[float, float, float, float]
    color: str


def picture(
    frame: NDArray[np.uint8],
    marks: Sequence[Mark] = (),
    outlines: Sequence[Outline] = (),
    width: int = PICTURE_WIDTH,
) -> str:
    """A JPEG data URI of a frame ``(H, W, 3)`` scaled to `width`, with marks and outlines."""
    scale = width / frame.shape[1]
    image = Image.fromarray(frame).resize((width, max(1, round(frame.shape[0] * scale))))
    draw = ImageDraw.Draw(image)
    for outline in outlines:
        draw.rectangle([v * scale for v in outline.xyxy_px], outline=outline.color, width=1)
    for mark in marks:
        x, y = mark.xy_px[0] * scale, mark.xy_px[1] * scale
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline="black", width=4)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), outline=mark.color, width=2)
        draw.point((x, y), fill=mark.color)
        if mark.text:
            draw.text(
                (x + 8, y - 6), mark.text, fill=mark.color, stroke_width=2, stroke_fill="black"
            )
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
