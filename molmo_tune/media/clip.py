"""What the model sees of one medium: its pictures and, for a video, their times.

The one place where files, the sampling rule and the caps of the recipe meet; training, preview and
evaluation all read media through `read_clip`, so that they see the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError
from molmo_tune.media.image import read_image
from molmo_tune.media.sampling import (
    TRACKING_MAX_FPS,
    candidate_rates,
    choose_rate,
    frame_on_screen,
    sample_times,
    sample_times_at,
)
from molmo_tune.media.video import VideoInfo, probe_video, read_frames

Sampling = Literal["uniform_last_frame", "fps"]

_RATE_SLACK = 0.01  # files round their timestamps, and only the whole part of a rate counts


@dataclass(frozen=True, slots=True)
class SampledTimes:
    """The moments of a video that the model sees.

    ``times_s``: target times. ``indices``: the frame on screen at each. ``size_wh`` in pixels.
    """

    times_s: tuple[float, ...]
    indices: tuple[int, ...]
    size_wh: tuple[int, int]
    duration_s: float


def sample_video(
    path: Path,
    *,
    max_frames: int,
    max_fps: float,
    sampling: Sampling = "uniform_last_frame",
    base_fps: int = 1,
) -> SampledTimes:
    """Choose the frames of a video without decoding them.

    Args:
        path: of the video.
        max_frames: cap.
        max_fps: cap.
        sampling: the rule, see `molmo_tune.media.sampling`.
        base_fps: for the rule `fps`, the rate that must divide the rate of sampling.

    Raises:
        UserError: see `probe_video`; or the rule `fps` has no rate for this video.
    """
    info = probe_video(path)
    if sampling == "fps":
        times = _times_at_a_rate(path, info, max_frames, max_fps, base_fps)
    else:
        times = sample_times(info.duration_s, max_frames=max_frames, max_fps=max_fps)
    indices = tuple(frame_on_screen(info.starts_s, time) for time in times)
    return SampledTimes(times, indices, info.size_wh, info.duration_s)


def _times_at_a_rate(
    path: Path, info: VideoInfo, max_frames: int, max_fps: float, base_fps: int
) -> tuple[float, ...]:
    measured_fps = info.num_frames / info.duration_s + _RATE_SLACK
    try:
        rates = candidate_rates(measured_fps, base_fps, min(max_fps, TRACKING_MAX_FPS))
    except ValueError as error:
        raise UserError(
            path,
            str(error),
            "with video.sampling fps, a rate that divides the video's",
            "take video.sampling uniform_last_frame, re-encode the video, raise video.max_fps, "
            "or change fps in the data template",
        ) from error
    rate = choose_rate(rates, info.duration_s, max_frames)
    return sample_times_at(rate, info.duration_s, max_frames=max_frames)


def read_video(path: Path, sampled: SampledTimes) -> NDArray[np.uint8]:
    """Pictures ``(n, H, W, 3)`` of the sampled moments."""
    return read_frames(path, sampled.indices)


def read_images(paths: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Pictures of all images of a sample, in order."""
    return [read_image(path) for path in paths]
