"""What lies between the labeled frames of a video of which only every n-th frame was labeled.

A track says "not there" where it has no observation. In a set that labels every fourth frame that
would be wrong for three frames of four. So between two labeled frames that both show an object it
is filled in, and flagged as interpolated: boxes and points on a straight line over at most two
seconds, other shapes by the nearer of the two over at most a quarter of a second, in which little
moves. After the last labeled frame the object stays for less than one step and as short a time.
Where the object is seen in one labeled frame and not in the next nobody knows when it left, and
nothing is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from molmo_tune.labels.sample import Box, Observation, Point, Shape
from molmo_tune.media.video import VideoInfo

MAX_LINE_S = 2.0
MAX_HOLD_S = 0.25


def filled(
    drawn: Sequence[Observation], labeled_frames: Sequence[int], video: VideoInfo
) -> list[Observation]:
    """Observations to add to those of one object.

    Args:
        drawn: in frame order.
        labeled_frames: 0-based, increasing; all others were not looked at.
        video: gives the times.
    """
    seen = {o.frame_index: o for o in drawn}
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
        _moved(before, _shape(before.shape, after.shape, number / span), index, video)
        for number, index in enumerate(range(before.frame_index, after.frame_index))
        if number
    ]


def _after(last: Observation, step: int, video: VideoInfo) -> list[Observation]:
    end = min(last.frame_index + step, video.num_frames)
    held = (_moved(last, last.shape, index, video) for index in range(last.frame_index + 1, end))
    return [o for o in held if o.time_s - last.time_s <= MAX_HOLD_S]


def _shape(before: Shape, after: Shape, share: float) -> Shape:
    if isinstance(before, Box) and isinstance(after, Box):
        left, top, right, bottom = _line(before.xyxy_px, after.xyxy_px, share)
        return Box((left, top, right, bottom))
    if isinstance(before, Point) and isinstance(after, Point):
        x, y = _line(before.xy_px, after.xy_px, share)
        return Point((x, y))
    return before if share <= 0.5 else after


def _line(before: Sequence[float], after: Sequence[float], share: float) -> list[float]:
    return [a + (b - a) * share for a, b in zip(before, after, strict=True)]


def _moved(like: Observation, shape: Shape, index: int, video: VideoInfo) -> Observation:
    return replace(
        like,
        time_s=video.starts_s[index],
        frame_index=index,
        shape=shape,
        interpolated=True,
    )
