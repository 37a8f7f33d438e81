"""Which frames the stock processors would take: not ours, but what a careless server shows.

The model was trained with the rules of `sampling`. The processor files of the released checkpoints
(handed an array) and transformers' native processor choose by rules of their own. They are written
down here so that the difference can be stated and tested; nothing in training or evaluation uses
them.
"""

from __future__ import annotations

import math

import numpy as np


def remote_array_indices(
    total_frames: int, video_fps: float, *, num_frames: int, max_fps: float
) -> tuple[int, ...]:
    """Frames that the released checkpoints' own processor takes from an array of all frames."""
    last = total_frames - 1
    if total_frames <= 2:
        return tuple(range(total_frames))
    if total_frames / video_fps > (num_frames - 1) / max_fps:
        return tuple(np.linspace(0, last, min(num_frames, total_frames)).astype(int).tolist())
    places = np.arange(0.0, last, video_fps / max_fps)
    if np.round(places[-1]) != last:
        places = np.append(places, last)
    return tuple(np.round(places).astype(int).tolist())


def native_indices(
    total_frames: int, video_fps: float, *, num_frames: int, max_fps: float
) -> tuple[int, ...]:
    """Frames that transformers' native processor takes: never the last one as such.

    A step that does not come out even in floating point can give one index too many, equal to
    `total_frames`, on which decoding fails.
    """
    wanted = num_frames
    if video_fps > max_fps:
        wanted = min(wanted, int(total_frames / video_fps * max_fps))
    step = total_frames / max(min(wanted, total_frames), 1)
    places = np.arange(math.ceil(total_frames / step)) * step
    return tuple(places.astype(np.float32).astype(int).tolist())
