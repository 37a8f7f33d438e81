"""Tasks of ``sampling-vectors.json``: sampled times and frames of a video.

The records also contain the samples of the stock processors, from which ours must differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from molmo_tune.encoding.vision_tokens import format_frame_time
from molmo_tune.media.sampling import (
    candidate_rates,
    choose_rate,
    frame_on_screen,
    sample_times,
    sample_times_at,
)
from tests.stock_sampling import native_indices, remote_array_indices

Input = dict[str, Any]


def _written(times_s: Sequence[float]) -> list[str]:
    return [format_frame_time(time) for time in times_s]


def uniform_last_frame(given: Input) -> Input:
    total, fps = given["total_frames"], given["video_fps"]
    limits = {"num_frames": given["num_frames"], "max_fps": given["max_fps"]}
    times = sample_times(total / fps, max_frames=given["num_frames"], max_fps=given["max_fps"])
    starts = [index / fps for index in range(total)]
    native = native_indices(total, fps, **limits)
    return {
        "ai2_times": times,
        "ai2_frame_indices_constant_fps": [frame_on_screen(starts, time) for time in times],
        "ai2_prompt_times": _written(times),
        "remote_array_indices": remote_array_indices(total, fps, **limits),
        "native_indices": native,
        "native_prompt_times": _written([index / fps for index in native]),
        "native_out_of_range": any(index >= total for index in native),
    }


def fps_mode_tracking(given: Input) -> Input:
    rates = candidate_rates(given["video_fps"], given["sampling_fps"] or 1)
    chosen = choose_rate(rates, given["duration"], given["max_frames"])
    times = sample_times_at(chosen, given["duration"], max_frames=given["max_frames"])
    return {
        "candidates": rates,
        "chosen_fps": chosen,
        "n": len(times),
        "first": times[:4],
        "last": times[-1],
    }


TASKS: dict[str, Callable[[Input], Any]] = {
    "uniform_last_frame": uniform_last_frame,
    "fps_mode_tracking": fps_mode_tracking,
}
