"""Which labelled objects are to be seen at which of the sampled moments.

Questions, answers and the truth that answers are scored against are all built from this one view
of a sample, so they cannot disagree about what was visible.

A moment shows an observation when its frame is the one on screen then. Labels that carry a time but
no frame number count when they lie within a hundredth of a second (`alignment.TOLERANCE_S`).
Hidden (occluded) objects and shapes wholly outside the frame are not visible.
"""

from __future__ import annotations

from dataclasses import dataclass

from molmo_tune.labels.points import shape_point
from molmo_tune.labels.sample import Observation, Sample, Shape, Track
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.alignment import TOLERANCE_S


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object at one sampled moment: ``time_s`` is the target time the model is given."""

    time_s: float
    shape: Shape
    xy_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class VisibleTrack:
    """One object and all sampled moments that show it, in time order (at least one)."""

    track_id: str
    sightings: tuple[Sighting, ...]


def visible_tracks(sample: Sample, label: str, sampled: SampledTimes) -> list[VisibleTrack]:
    """Objects of a label that at least one sampled moment shows, in file order."""
    tracks = (a for a in sample.annotations if isinstance(a, Track) and a.label == label)
    found = (VisibleTrack(track.id, _sightings(track, sampled)) for track in tracks)
    return [track for track in found if track.sightings]


def _sightings(track: Track, sampled: SampledTimes) -> tuple[Sighting, ...]:
    by_frame = {o.frame_index: o for o in track.observations if o.frame_index >= 0}
    by_time = [o for o in track.observations if o.frame_index < 0]
    sightings = []
    for time_s, index in zip(sampled.times_s, sampled.indices, strict=True):
        seen = by_frame.get(index) or _at_time(by_time, time_s)
        if seen is None or seen.occluded:
            continue
        xy = shape_point(seen.shape, sampled.size_wh)
        if xy is not None:
            sightings.append(Sighting(time_s, seen.shape, xy))
    return tuple(sightings)


def _at_time(observations: list[Observation], time_s: float) -> Observation | None:
    near = (o for o in observations if abs(o.time_s - time_s) < TOLERANCE_S)
    return min(near, key=lambda o: abs(o.time_s - time_s), default=None)
