"""Labeled objects over the frames of a clip, and which frames each kind of track answer lists.

Molmo 2 knows four track answers: every frame of the asked rate, only the first and last moment of
each object, and the continuation of given starting points (one or several). They differ in the
frames they list, not in how they are written, so the choice is a pure step on `TrackFrame`s here
and the writing is `molmo_tune.grounding.text.format_tracks`. The frames given are those that the
model sees; `molmo_tune.templates.visible` finds what they show.

Both selectors return one frame per (distinct) input frame, emptied where nothing is kept: the
writer answers differently for "no frames" and for "frames without a visible object".
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from molmo_tune.grounding.times import Time, time_order


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """One object in one frame: its source id, its place in pixels, and whether it is hidden."""

    id: Hashable
    xy_px: tuple[float, float]
    occluded: bool = False


@dataclass(frozen=True, slots=True)
class TrackFrame:
    """All labeled objects of one video frame, at a time in seconds from the clip's start."""

    time_s: Time
    points: tuple[TrackPoint, ...] = ()


def start_end_only(frames: Sequence[TrackFrame]) -> list[TrackFrame]:
    """Keep each object's first and last listed frame; merge frames with the same time.

    "Listed" goes by the order given and looks at neither time nor occlusion, as in the training
    data: an object that is hidden in its first frame loses that end.
    """
    listed: dict[Hashable, list[int]] = {}
    for index, frame in enumerate(frames):
        for point in frame.points:
            listed.setdefault(point.id, []).append(index)
    merged: dict[Time, dict[Hashable, TrackPoint]] = {}
    for index, frame in enumerate(frames):
        kept = merged.setdefault(frame.time_s, {})
        kept.update((p.id, p) for p in frame.points if index in (listed[p.id][0], listed[p.id][-1]))
    return [TrackFrame(time_s, tuple(points.values())) for time_s, points in merged.items()]


def from_initial_points(
    frames: Sequence[TrackFrame], initial: Mapping[Hashable, Time]
) -> list[TrackFrame]:
    """Keep what continues the starting points that a question gives.

    Args:
        frames: the frames of the clip.
        initial: source id to start time in seconds of each given object.

    A frame is kept whole, with objects that were not given too, when a given object is listed in it
    later than its start. The frame of the start itself is therefore not repeated.
    """
    starts = {object_id: time_order(time) for object_id, time in initial.items()}

    def continues(frame: TrackFrame) -> bool:
        now = time_order(frame.time_s)
        return any(p.id in starts and now > starts[p.id] for p in frame.points)

    return [frame if continues(frame) else replace(frame, points=()) for frame in frames]
