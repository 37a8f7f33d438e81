"""Labeled objects over the frames of a clip, and the frames that each kind of track answer lists.

Molmo 2 has four kinds of track answers: every frame of a rate, only the first and last frame of
each object, and the continuation of one or of several given points. They differ in the frames they
list, not in their format. So this module chooses the frames, as a pure step on `TrackFrame`s, and
`molmo_tune.grounding.text.format_tracks` formats them. The input holds the frames that the model
sees; `molmo_tune.templates.visible` finds what they show.

Both functions return one frame per (distinct) input frame, empty where they keep nothing, because
the answer for "no frames" differs from that for "frames without a visible object".
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from molmo_tune.grounding.times import Time, time_order


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """One object in one frame: source id, position in pixels, and whether it is hidden."""

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

    "Listed" means the given order, regardless of time and occlusion, as in the reference: an object
    that is hidden in its first frame loses that end. `molmo_tune.templates.tracking` passes visible
    objects only, so this does not happen in training.
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
    """Keep the frames that continue the starting points in a question.

    A frame is kept with all its objects if it lists a given object after that object's start. So
    the answer does not repeat the frame of the start.

    Args:
        frames: the frames of the clip.
        initial: start time in seconds by source id of each given object.
    """
    starts = {object_id: time_order(time) for object_id, time in initial.items()}

    def continues(frame: TrackFrame) -> bool:
        now = time_order(frame.time_s)
        return any(p.id in starts and now > starts[p.id] for p in frame.points)

    return [frame if continues(frame) else replace(frame, points=()) for frame in frames]
