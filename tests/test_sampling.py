"""Sampled times of videos, beyond the reference's records (see ``test_vectors.py``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from molmo_tune.encoding.items import MediaLimits
from molmo_tune.encoding.sources import limits_of
from molmo_tune.errors import UserError
from molmo_tune.media.clip import sample_video
from molmo_tune.media.sampling import candidate_rates, choose_rate, sample_times_at
from molmo_tune.media.video import probe_video
from molmo_tune.recipe.loader import load_recipe
from tests.stock_sampling import native_indices, remote_array_indices


@pytest.mark.parametrize(
    ("video_fps", "base_fps", "rates"),
    [
        (6, 1, (1, 2, 3, 6)),
        (30, 2, (2, 6, 10)),
        (29.97, 1, (1,)),  # 29 is a prime
        (60, 5, (5, 10)),
        (10, 10, (10,)),
    ],
)
def test_candidate_rates(video_fps: float, base_fps: int, rates: tuple[int, ...]) -> None:
    assert candidate_rates(video_fps, base_fps) == rates


@pytest.mark.parametrize(
    ("video_fps", "base_fps", "max_fps", "reason"),
    [
        (25, 2, 10, "2 frames per second do not divide the video's 25"),
        (29.97, 2, 10, "do not divide the video's 29.97"),
        (0.5, 1, 10, "do not divide the video's 0.5"),
        (30, 15, 10, "15 frames per second are more than the 10 allowed"),
        (30, 3, 2.0, "3 frames per second are more than the 2 allowed"),
    ],
)
def test_impossible_rates_raise(
    video_fps: float, base_fps: int, max_fps: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        candidate_rates(video_fps, base_fps, max_fps)


def test_choose_rate_stops_at_the_first_rate_that_does_not_span() -> None:
    assert choose_rate((1, 2, 3, 6), duration_s=42.0, max_frames=128) == 3
    assert choose_rate((1, 2, 3, 6), duration_s=1000.0, max_frames=128) == 1
    assert len(sample_times_at(1, 1000.0, max_frames=128)) == 128
    assert sample_times_at(2, 1.2, max_frames=128) == (0.0, 0.5, 1.0)


def test_video_with_an_unusual_rate(pond: Path) -> None:
    """Rates divide the clip's own and no last frame is added."""
    clip = sorted((pond / "clips").iterdir())[0]
    even = sample_video(clip, max_frames=128, max_fps=10.0)
    info = probe_video(clip)
    fps = round(info.num_frames / info.duration_s)
    rated = sample_video(clip, max_frames=128, max_fps=10.0, sampling="fps")
    rate = max(candidate_rates(fps))
    assert rated.times_s == sample_times_at(rate, rated.duration_s, max_frames=128)
    assert rated.indices == tuple(round(time * fps) for time in rated.times_s)
    assert even.times_s[-1] == even.duration_s > rated.times_s[-1]
    slow = sample_video(clip, max_frames=128, max_fps=2.0, sampling="fps")
    assert slow.times_s[1] >= 0.5
    with pytest.raises(UserError, match=r"do not divide the video's .*uniform_last_frame"):
        sample_video(clip, max_frames=128, max_fps=10.0, sampling="fps", base_fps=7)


def test_the_recipe_chooses_the_rule(pond_recipe: Path) -> None:
    recipe = load_recipe(pond_recipe, ["video.sampling=fps", "video.max_fps=6"])
    assert limits_of(recipe) == MediaLimits(8, 6.0, 8, "fps")
    assert limits_of(load_recipe(pond_recipe)).sampling == "uniform_last_frame"


def test_stock_processors_take_other_frames() -> None:
    """The worked example of 115 frames at 30 fps."""
    limits = {"num_frames": 384, "max_fps": 2.0}
    assert remote_array_indices(115, 30, **limits)[-2:] == (105, 114)
    assert native_indices(115, 30, **limits)[-1] == 115  # one too many: decoding crashes there
    assert remote_array_indices(2, 30, **limits) == (0, 1)
