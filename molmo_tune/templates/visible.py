"""Which labeled objects and events are visible at which of the sampled times.

Questions, answers and the ground truth that answers are scored against all use this one view of a
sample, so they cannot disagree about what was visible.

A sampled time shows an observation if the observation's frame is on screen then. Labels with a time
but no frame number count if they are within a hundredth of a second (`alignment.TOLERANCE_S`).
Hidden (occluded) objects and shapes entirely outside the frame are not visible. An event is visible
if its span contains a sampled time; it ends at the last sampled time at the latest.
"""

from __future__ import annotations

from dataclasses import dataclass

from molmo_tune.labels.geometry.points import DEFAULT_RULE, shape_point
from molmo_tune.labels.sample import Observation, Sample, Shape, Span, Track
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.alignment import TOLERANCE_S


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object at one sampled time; ``time_s`` is the time given to the model."""

    time_s: float
    shape: Shape
    xy_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class VisibleTrack:
    """One object and all sampled times that show it, in order (at least one)."""

    track_id: str
    sightings: tuple[Sighting, ...]


def visible_tracks(
    sample: Sample, label: str, sampled: SampledTimes, rule: str = DEFAULT_RULE, seed: int = 0
) -> list[VisibleTrack]:
    """Return the objects of a label that at least one sampled time shows, in file order."""
    return shown_and_hidden(sample, label, sampled, rule, seed)[0]


def shown_and_hidden(
    sample: Sample, label: str, sampled: SampledTimes, rule: str = DEFAULT_RULE, seed: int = 0
) -> tuple[list[VisibleTrack], list[Track]]:
    """Return the objects of a label that some sampled time shows, and those that none shows.

    Args:
        sample: a sample with all its annotations.
        label: a label of the sample.
        sampled: what the model sees.
        rule: which point represents a shape (`geometry.points`).
        seed: seed of points chosen at random.
    """
    shown: list[VisibleTrack] = []
    hidden: list[Track] = []
    for track in sample.annotations:
        if not isinstance(track, Track) or track.label != label:
            continue
        sightings = _sightings(track, sampled, rule, f"{seed}:{sample.id}:{track.id}")
        if sightings:
            shown.append(VisibleTrack(track.id, sightings))
        else:
            hidden.append(track)
    return shown, hidden


def visible_span(span: Span, sampled: SampledTimes) -> tuple[float, float] | None:
    """Return start and end in seconds of the visible part of an event; None if not visible."""
    shown = any(
        span.start_s - TOLERANCE_S < time_s < span.end_s + TOLERANCE_S for time_s in sampled.times_s
    )
    last = sampled.times_s[-1]
    return (min(span.start_s, last), min(span.end_s, last)) if shown else None


def _sightings(track: Track, sampled: SampledTimes, rule: str, key: str) -> tuple[Sighting, ...]:
    by_frame = {o.frame_index: o for o in track.observations if o.frame_index >= 0}
    by_time = [o for o in track.observations if o.frame_index < 0]
    sightings = []
    for time_s, index in zip(sampled.times_s, sampled.indices, strict=True):
        seen = by_frame.get(index) or _at_time(by_time, time_s)
        if seen is None or seen.occluded:
            continue
        xy = shape_point(seen.shape, sampled.size_wh, rule, key)
        if xy is not None:
            sightings.append(Sighting(time_s, seen.shape, xy))
    return tuple(sightings)


def _at_time(observations: list[Observation], time_s: float) -> Observation | None:
    near = (o for o in observations if abs(o.time_s - time_s) < TOLERANCE_S)
    return min(near, key=lambda o: abs(o.time_s - time_s), default=None)
