"""Images and videos of the golden cases: drawn black when a test runs, never committed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

VIDEO_SUFFIXES = (".mp4", ".mkv")


def draw_media(path: Path, size_wh: Sequence[int], num_frames: int = 20, fps: int = 10) -> Path:
    """Write a black image, or a black video where the name ends like one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in VIDEO_SUFFIXES:
        path.write_bytes(_video(tuple(size_wh), num_frames, fps))
    else:
        Image.new("RGB", tuple(size_wh)).save(path)
    return path


@cache
def _video(size_wh: tuple[int, int], num_frames: int, fps: int) -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"
        black = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(black, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()
