"""The frames of an item with the points of its answers, which are labels or predictions.

Video frames are rebuilt from the patches, so they show what the model sees; images are shown
as they are. If there are many frames, those that an answer names come first. A line shows the
earlier positions of a track.
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
from molmo_tune.pages.drawing import Mark, draw_image, frames_of_patches

COLORS = ("#ffd400", "#00e5ff", "#ff5fa2", "#7dff6a", "#ff8a3c", "#c79bff")
MAX_FRAMES = 16
TRAIL = 8  # earlier positions of an object, joined by a line
_SLACK_S = 0.06  # answers round times to one decimal


@dataclass(frozen=True, slots=True)
class _AnswerPoint:
    """A point of an answer, with the number (from 0) and the label of its question."""

    question: int
    label: str
    point: ParsedPoint


def drawn_frames(item: Item, patches: NDArray[np.float32]) -> list[dict[str, str]]:
    """Return ``uri`` and ``caption`` of each frame or image, with the points of the answers.

    Args:
        item: the answers of its conversations are drawn, labels and predictions alike.
        patches: ``(C, P, D)`` of its video, in [-1, 1]; not used for images, which are opened.

    Raises:
        UserError: an image does not open.
    """
    points = _answer_points(item)
    if item.sampled is None:
        images = read_images(item.sample.media.paths)
        return [
            {"uri": draw_image(image, _marks_on(points, number)), "caption": f"image {number}"}
            for number, image in enumerate(images, start=1)
        ]
    times, size = item.sampled.times_s, item.sampled.size_wh
    shown = _shown_frames(times, points)
    frames = frames_of_patches(patches[shown])
    return [
        {
            "uri": draw_image(frame, _marks_at(points, times[number]), size_wh=size),
            "caption": f"{times[number]:.1f} s",
        }
        for number, frame in zip(shown, frames, strict=True)
    ]


def _shown_frames(times_s: Sequence[float], points: Sequence[_AnswerPoint]) -> list[int]:
    """At most MAX_FRAMES frames, evenly spaced, preferring those that an answer names."""
    named = [number for number, time_s in enumerate(times_s) if _at(points, time_s)]
    others = sorted(set(range(len(times_s))) - set(named))
    chosen = _spread(named, MAX_FRAMES)
    return sorted(chosen + _spread(others, MAX_FRAMES - len(chosen)))


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    kept = min(most, len(numbers))
    return [numbers[place * len(numbers) // kept] for place in range(kept)]


def _answer_points(item: Item) -> list[_AnswerPoint]:
    return [
        _AnswerPoint(number, conversation.label, point)
        for number, conversation in enumerate(item.conversations)
        for point in points_of(item, conversation.answer)
    ]


def _at(points: Sequence[_AnswerPoint], time_s: float) -> list[_AnswerPoint]:
    return [one for one in points if abs(one.point.frame_id - time_s) < _SLACK_S]


def _marks_at(points: Sequence[_AnswerPoint], time_s: float) -> list[Mark]:
    return [_mark(one, tuple(_earlier(points, one)[-TRAIL:])) for one in _at(points, time_s)]


def _earlier(points: Sequence[_AnswerPoint], one: _AnswerPoint) -> list[tuple[float, float]]:
    """Earlier positions of the same object in the same answer."""
    earlier = (
        other.point
        for other in points
        if (other.question, other.point.id) == (one.question, one.point.id)
        and other.point.frame_id < one.point.frame_id
    )
    return [point.xy_px for point in sorted(earlier, key=lambda point: point.frame_id)]


def _marks_on(points: Sequence[_AnswerPoint], number: int) -> list[Mark]:
    return [_mark(one) for one in points if one.point.frame_id == number]


def _mark(one: _AnswerPoint, trail: tuple[tuple[float, float], ...] = ()) -> Mark:
    color = COLORS[one.question % len(COLORS)]
    return Mark(one.point.xy_px, color, f"{one.label} {one.point.id}", trail)
