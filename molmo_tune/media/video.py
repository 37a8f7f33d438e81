"""Video files: presentation times of all frames, and the pictures of chosen ones.

Times come from the file's own timestamps, never from ``index / fps``: variable rates and clips that
do not start at zero are normal. Index 0 is the first frame *shown*; seconds count from it. Frames
are upright (rotation metadata applied) and RGB.

decord seeks to the wanted frames instead of decoding everything. A reader is opened, used and
closed inside one call, because decord must not be carried across a fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError

_FIX = "re-encode it (ffmpeg -i IN -c:v libx264 OUT.mp4) or leave it out"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file says of itself.

    ``starts_s``: presentation time of every frame, from the first frame's, increasing.
    ``duration_s``: end of the last frame. ``size_wh``: upright width and height in pixels.
    """

    starts_s: tuple[float, ...]
    duration_s: float
    size_wh: tuple[int, int]

    @property
    def num_frames(self) -> int:
        """Frames that are shown."""
        return len(self.starts_s)


def probe_video(path: Path) -> VideoInfo:
    """Times, duration and size of a video.

    Raises:
        UserError: the file is missing, is no video, or its first frame does not decode.
    """
    if not path.is_file():
        raise UserError(path, "no such video file", fix="check the media folder of the recipe")
    status = path.stat()
    return _probe(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _probe(path: Path, _modified: int, _size: int) -> VideoInfo:
    try:
        reader = _open(path)
        spans = np.asarray(reader.get_frame_timestamp(list(range(len(reader)))), np.float64)
        height, width = reader[0].shape[:2]
    except Exception as error:
        raise UserError(path, f"not a video that decodes ({_reason(error)})", fix=_FIX) from error
    spans = np.round(spans - spans[0, 0], 6)
    return VideoInfo(tuple(spans[:, 0].tolist()), float(spans[-1, 1]), (int(width), int(height)))


def read_frames(path: Path, indices: Sequence[int]) -> NDArray[np.uint8]:
    """Pictures ``(n, H, W, 3)`` of the frames with these indices; repeats are allowed.

    Raises:
        UserError: a frame does not decode.
    """
    distinct = sorted(set(indices))
    try:
        frames = _open(path).get_batch(distinct).asnumpy()
    except Exception as error:
        where = f"{path}: frames {distinct[0]} to {distinct[-1]}"
        raise UserError(where, f"do not decode ({_reason(error)})", fix=_FIX) from error
    place = {index: number for number, index in enumerate(distinct)}
    picked: NDArray[np.uint8] = frames[[place[index] for index in indices]]
    return picked


def _open(path: Path) -> Any:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord.VideoReader(str(path), num_threads=1)


def _reason(error: Exception) -> str:
    """The last sentence of decord's report, which begins with source lines of its own."""
    line = next((part for part in str(error).splitlines() if part.strip()), type(error).__name__)
    return line.rsplit("] ", 1)[-1].strip()[:160]
