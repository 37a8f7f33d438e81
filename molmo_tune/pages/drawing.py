"""Frames with points, trails and boxes drawn on them, as data URIs for self-contained pages."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

IMAGE_WIDTH = 240
MAX_HEIGHT = 1200  # of very tall images
JPEG_QUALITY = 85
RING_PX = 5
_EDGE_PX = 2
_FONT = ImageFont.load_default()

SizeWH = tuple[int, int]
XY = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point to draw: pixels of the original frame, a CSS color and an optional short text.

    ``trail``: earlier positions of the object, oldest first.
    """

    xy_px: XY
    color: str
    text: str = ""
    trail: tuple[XY, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """A box to draw: pixels of the original frame and a CSS color."""

    xyxy_px: tuple[float, float, float, float]
    color: str


def draw_image(
    frame: NDArray[np.uint8],
    marks: Sequence[Mark] = (),
    outlines: Sequence[Outline] = (),
    *,
    width: int = IMAGE_WIDTH,
    size_wh: SizeWH | None = None,
) -> str:
    """Return a frame as a JPEG data URI, scaled to `width`, with marks and outlines.

    Args:
        frame: RGB, ``(H, W, 3)``.
        marks: points, in pixels of the original frame.
        outlines: boxes, in pixels of the original frame.
        width: in pixels of the result; very tall images become narrower.
        size_wh: size of the original frame, if `frame` is the model's square view of it.
    """
    original = size_wh or (frame.shape[1], frame.shape[0])
    scale = min(width / original[0], MAX_HEIGHT / original[1])
    size = max(1, round(original[0] * scale)), max(1, round(original[1] * scale))
    image = Image.fromarray(frame).resize(size)
    draw = ImageDraw.Draw(image)
    for outline in outlines:
        draw.rectangle([v * scale for v in outline.xyxy_px], outline=outline.color, width=1)
    for mark in marks:
        _draw_mark(draw, mark, scale, image.size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def frames_of_patches(patches: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the square frames ``(C, S, S, 3)`` that patches ``(C, P, D)`` in [-1, 1] came from."""
    crops, num_patches, num_values = patches.shape
    rows, side = math.isqrt(num_patches), math.isqrt(num_values // 3)
    cut = patches.reshape(crops, rows, rows, side, side, 3).transpose(0, 1, 3, 2, 4, 5)
    whole = cut.reshape(crops, rows * side, rows * side, 3)
    levels: NDArray[np.float32] = np.clip(np.rint((whole + 1) * 127.5), 0, 255)
    return levels.astype(np.uint8)


def _draw_mark(draw: Any, mark: Mark, scale: float, size_wh: SizeWH) -> None:
    x, y = mark.xy_px[0] * scale, mark.xy_px[1] * scale
    if mark.trail:
        line = [(u * scale, v * scale) for u, v in (*mark.trail, mark.xy_px)]
        draw.line(line, fill=mark.color, width=2)
    ring = RING_PX
    draw.ellipse((x - ring - 1, y - ring - 1, x + ring + 1, y + ring + 1), outline="black", width=4)
    draw.ellipse((x - ring, y - ring, x + ring, y + ring), outline=mark.color, width=2)
    draw.point((x, y), fill=mark.color)
    if mark.text:
        place = place_text((x, y), _FONT.getbbox(mark.text)[2:], size_wh)
        style = {"font": _FONT, "fill": mark.color, "stroke_width": 2, "stroke_fill": "black"}
        draw.text(place, mark.text, **style)


def place_text(point: XY, text_wh: Sequence[float], size_wh: SizeWH) -> XY:
    """Return the top left corner of a text: right of its point, or left if it would be cut off.

    Args:
        point: in pixels of the drawn image, like all sizes here.
        text_wh: size of the text.
        size_wh: size of the drawn image.
    """
    (x, y), (width, height) = point, text_wh
    gap = RING_PX + 3
    left = x + gap
    if left + width + _EDGE_PX > size_wh[0]:
        left = max(x - gap - width, _EDGE_PX)
    top = min(max(y - height / 2, _EDGE_PX), size_wh[1] - height - _EDGE_PX)
    return left, top
