"""The frames of an item with what its answers point at: labels in the preview, or predictions.

Frames of a video are put together from its patches, so they are what the model sees; images are
shown whole. Of many frames those that an answer speaks of are shown first. A track's earlier
positions trail behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.answer_points import points_of
from molmo_tune.grounding.text import ParsedPoint
from molmo_tune.media.clip import read_images
from molmo_tune.pages.pictures import Mark, frames_of_patches, picture

COLORS = ("#ffd400", "#00e5ff", "#ff5fa2", "#7dff6a", "#ff8a3c", "#c79bff")
MAX_FRAMES = 16
TRAIL = 8  # earlier positions of an object that are joined by a line
_SLACK_S = 0.06  # answers spell times with one decimal


@dataclass(frozen=True, slots=True)
class _Said:
    """A point of an answer, and which question (from 0) it answers."""

    question: int
    label: str
    point: ParsedPoint


def frame_pictures(item: Item, patches: NDArray[np.float32]) -> list[dict[str, str]]:
    """A picture (``uri``) and ``caption`` per frame or image, with what the answers point at.

    Args:
        item: its conversations' answers are drawn, labels or predictions alike.
        patches: ``(C, P, D)`` of its video; images are opened.

    Raises:
        UserError: an image does not open.
    """
    said = _said(item)
    if item.sampled is None:
        images = read_images(item.sample.media.paths)
        return [
            {"uri": picture(image, _marks_on(said, number)), "caption": f"image {number}"}
            for number, image in enumerate(images, start=1)
        ]
    times, size = item.sampled.times_s, item.sampled.size_wh
    shown = _shown_frames(times, said)
    pictures = frames_of_patches(patches[shown])
    return [
        {
            "uri": picture(frame, _marks_at(said, times[number]), size_wh=size),
            "caption": f"{times[number]:.1f} s",
        }
        for number, frame in zip(shown, pictures, strict=True)
    ]


def _shown_frames(times_s: Sequence[float], said: Sequence[_Said]) -> list[int]:
    """At most so many frames, evenly spread, first of all among those an answer speaks of."""
    spoken = [number for number, time in enumerate(times_s) if _at(said, time)]
    others = sorted(set(range(len(times_s))) - set(spoken))
    chosen = _spread(spoken, MAX_FRAMES)
    return sorted(chosen + _spread(others, MAX_FRAMES - len(chosen)))


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    kept = min(most, len(numbers))
    return [numbers[place * len(numbers) // kept] for place in range(kept)]


def _said(item: Item) -> list[_Said]:
    return [
        _Said(number, conversation.label, point)
        for number, conversation in enumerate(item.conversations)
        for point in points_of(item, conversation.answer)
    ]


def _at(said: Sequence[_Said], time_s: float) -> list[_Said]:
    return [one for one in said if abs(one.point.frame_id - time_s) < _SLACK_S]


def _marks_at(said: Sequence[_Said], time_s: float) -> list[Mark]:
    return [_mark(one, tuple(_before(said, one)[-TRAIL:])) for one in _at(said, time_s)]


def _before(said: Sequence[_Said], one: _Said) -> list[tuple[float, float]]:
    """Where the same object of the same answer was said to be earlier."""
    earlier = (
        other.point
        for other in said
        if (other.question, other.point.id) == (one.question, one.point.id)
        and other.point.frame_id < one.point.frame_id
    )
    return [point.xy_px for point in sorted(earlier, key=lambda point: point.frame_id)]


def _marks_on(said: Sequence[_Said], number: int) -> list[Mark]:
    return [_mark(one) for one in said if one.point.frame_id == number]


def _mark(one: _Said, trail: tuple[tuple[float, float], ...] = ()) -> Mark:
    color = COLORS[one.question % len(COLORS)]
    return Mark(one.point.xy_px, color, f"{one.label} {one.point.id}", trail)
