"""Fills the gaps between labeled frames when only every n-th frame of a video was labeled.

A track says "absent" where it has no observation. With every fourth frame labeled, that would be
wrong for three of four frames. So an object that is in two successive labeled frames is filled in
between, flagged as interpolated: boxes and points linearly over at most two seconds, other shapes
by copying the nearer one over at most a quarter of a second, in which little moves. After the last
labeled frame, the object stays for less than one step and at most a quarter of a second. If it is
in one labeled frame but not in the next, the moment it left is unknown, and nothing is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from molmo_tune.labels.sample import Box, Observation, Point, Shape
from molmo_tune.media.video import VideoInfo

MAX_LINE_S = 2.0
MAX_HOLD_S = 0.25


def fill_gaps(
    labeled: Sequence[Observation], labeled_frames: Sequence[int], video: VideoInfo
) -> list[Observation]:
    """Return the observations to add to one object.

    Args:
        labeled: annotated observations in frame order.
        labeled_frames: 0-based indices in increasing order; other frames were not labeled.
        video: video with the frame times.
    """
    seen = {o.frame_index: o for o in labeled}
    added: list[Observation] = []
    for before, after in pairwise(labeled_frames):
        if before in seen and after in seen:
            added += _between(seen[before], seen[after], video)
    steps = [after - before for before, after in pairwise(labeled_frames)]
    if steps and labeled_frames[-1] in seen:
        added += _after(seen[labeled_frames[-1]], min(steps), video)
    return [o for o in added if o.frame_index not in seen]


def _between(before: Observation, after: Observation, video: VideoInfo) -> list[Observation]:
    gap_s = after.time_s - before.time_s
    moves = isinstance(before.shape, Box | Point) and type(before.shape) is type(after.shape)
    if gap_s > (MAX_LINE_S if moves else MAX_HOLD_S):
        return []
    span = after.frame_index - before.frame_index
    return [
        _copied(before, _shape(before.shape, after.shape, number / span), index, video)
        for number, index in enumerate(range(before.frame_index, after.frame_index))
        if number
    ]


def _after(last: Observation, step: int, video: VideoInfo) -> list[Observation]:
    end = min(last.frame_index + step, video.num_frames)
    held = (_copied(last, last.shape, index, video) for index in range(last.frame_index + 1, end))
    return [o for o in held if o.time_s - last.time_s <= MAX_HOLD_S]


def _shape(before: Shape, after: Shape, fraction: float) -> Shape:
    if isinstance(before, Box) and isinstance(after, Box):
        left, top, right, bottom = _line(before.xyxy_px, after.xyxy_px, fraction)
        return Box((left, top, right, bottom))
    if isinstance(before, Point) and isinstance(after, Point):
        x, y = _line(before.xy_px, after.xy_px, fraction)
        return Point((x, y))
    return before if fraction <= 0.5 else after


def _line(before: Sequence[float], after: Sequence[float], fraction: float) -> list[float]:
    return [a + (b - a) * fraction for a, b in zip(before, after, strict=True)]


def _copied(original: Observation, shape: Shape, index: int, video: VideoInfo) -> Observation:
    return replace(
        original,
        time_s=video.starts_s[index],
        frame_index=index,
        shape=shape,
        interpolated=True,
    )
