"""The model's view of one media file: its frames and, for a video, their times.

Files, the sampling rule and the caps of the recipe meet here only: training, preview and evaluation
all sample and read through this module, so they see the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmo_tune.choices import Sampling
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

_RATE_SLACK = 0.01  # files round their timestamps, and only the integer part of a rate counts


@dataclass(frozen=True, slots=True)
class SampledTimes:
    """Sampled times and frames of a video.

    Args:
        times_s: target times in seconds, increasing.
        indices: 0-based index of the frame on screen at each time.
        size_wh: upright width and height in pixels.
        duration_s: end of the last frame in seconds.
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
        path: the video file or folder of frames.
        max_frames: maximum number of frames.
        max_fps: maximum sampling rate in frames per second.
        sampling: the rule, see `molmo_tune.media.sampling`.
        base_fps: for the rule `fps`, the rate that must divide the sampling rate.

    Raises:
        UserError: see `probe_video`; or no rate of the rule `fps` divides this video's rate.
    """
    info = probe_video(path)
    if sampling == "fps":
        times = _times_at_whole_rate(path, info, max_frames, max_fps, base_fps)
    else:
        times = sample_times(info.duration_s, max_frames=max_frames, max_fps=max_fps)
    indices = tuple(frame_on_screen(info.starts_s, time) for time in times)
    return SampledTimes(times, indices, info.size_wh, info.duration_s)


def _times_at_whole_rate(
    path: Path, info: VideoInfo, max_frames: int, max_fps: float, base_fps: int
) -> tuple[float, ...]:
    measured_fps = info.num_frames / info.duration_s + _RATE_SLACK
    try:
        rates = candidate_rates(measured_fps, base_fps, min(max_fps, TRACKING_MAX_FPS))
    except ValueError as error:
        raise UserError(
            path,
            str(error),
            "a rate that divides the video's (video.sampling: fps)",
            "set video.sampling: uniform_last_frame, re-encode the video, raise video.max_fps, "
            "or change fps in the data template",
        ) from error
    rate = choose_rate(rates, info.duration_s, max_frames)
    return sample_times_at(rate, info.duration_s, max_frames=max_frames)


def read_video(path: Path, sampled: SampledTimes) -> NDArray[np.uint8]:
    """Return the sampled frames as RGB ``(n, H, W, 3)``, upright."""
    return read_frames(path, sampled.indices)


def read_images(paths: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Return all images of a sample as RGB ``(H, W, 3)``, upright, in order."""
    return [read_image(path) for path in paths]
