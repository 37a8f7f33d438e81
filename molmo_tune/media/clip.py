"""What the model sees of one medium: its pictures and, for a video, their times.

The one place where files, the sampling rule and the caps of the recipe meet; training, preview and
evaluation all read media through `read_clip`, so that they see the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmo_tune.media.image import read_image
from molmo_tune.media.sampling import frame_on_screen, sample_times
from molmo_tune.media.video import probe_video, read_frames


@dataclass(frozen=True, slots=True)
class SampledTimes:
    """The moments of a video that the model sees.

    ``times_s``: target times. ``indices``: the frame on screen at each. ``size_wh`` in pixels.
    """

    times_s: tuple[float, ...]
    indices: tuple[int, ...]
    size_wh: tuple[int, int]
    duration_s: float


def sample_video(path: Path, *, max_frames: int, max_fps: float) -> SampledTimes:
    """Choose the frames of a video without decoding them.

    Raises:
        UserError: see `probe_video`.
    """
    info = probe_video(path)
    times = sample_times(info.duration_s, max_frames=max_frames, max_fps=max_fps)
    indices = tuple(frame_on_screen(info.starts_s, time) for time in times)
    return SampledTimes(times, indices, info.size_wh, info.duration_s)


def read_video(path: Path, sampled: SampledTimes) -> NDArray[np.uint8]:
    """Pictures ``(n, H, W, 3)`` of the sampled moments."""
    return read_frames(path, sampled.indices)


def read_images(paths: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Pictures of all images of a sample, in order."""
    return [read_image(path) for path in paths]
