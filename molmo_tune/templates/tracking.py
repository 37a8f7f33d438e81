"""Questions answered with tracks: per frame, first and last frame only, or from a given point.

* *Per frame* (`tracking`): every object of a label at every step of the question's rate, which is
  two positions per second unless stated. A question uses only rates whose every step the model
  sees; if it sees none of the template's rates in full, there is no question.
* *Start and end* (`tracking_start_end`): each object at the first and last sampled time that shows
  it. Unlike in the reference, a hidden end moves to the nearest visible time instead of
  disappearing.
* *Single point* (`single_point_tracking`): one question per object. It gives the object's position
  at the first time that shows it (in a fifth of the questions, at another time), and the answer
  continues from there.

Times are the sampled times given to the model, as answers spell them. Where two times have one
spelling (the end of a clip just after a step), the first one counts. Objects are numbered by their
place among the visible objects of their label, because ids in label files are not always unique.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from molmo_tune.grounding.text import NO_POINTS, format_tracks, input_points
from molmo_tune.grounding.times import written_time
from molmo_tune.grounding.tracks import (
    TrackFrame,
    TrackPoint,
    from_initial_points,
    start_end_only,
)
from molmo_tune.labels.sample import Track
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.alignment import InitialPoint, grid_moments, shows_rate
from molmo_tune.templates.chat import with_style_prefix
from molmo_tune.templates.conversations import Conversation, Questions, Skipped, Subject
from molmo_tune.templates.exhaustive import absent_labels
from molmo_tune.templates.pointing import never_shown, tracks_shown
from molmo_tune.templates.template import DEFAULT_FPS
from molmo_tune.templates.visible import VisibleTrack
from molmo_tune.templates.wording import draw, mentioning

LATER_START_FRACTION = 0.2
NOT_SHOWN = "no sampled frame shows it"
BETWEEN_STEPS = "it is visible only between the steps of the rate"
NO_SEQUEL = "no step of the rate shows this object after its given point"


def tracking(subject: Subject) -> Questions:
    """Return one conversation per label of a video, at one of the template's rates."""
    rates = _rates_shown(subject)
    if not rates:
        return [], [_no_rate(subject, label) for label in subject.sample.labels(Track)]
    return _about_labels(subject, rates)


def tracking_start_end(subject: Subject) -> Questions:
    """Return one conversation per label of a video: first and last position of its objects."""
    return _about_labels(subject, ())


def single_point_tracking(subject: Subject) -> Questions:
    """Return one conversation per object of a video, continuing from a given point."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    rates = _rates_shown(subject)
    for label in subject.sample.labels(Track):
        shown, hidden = tracks_shown(subject, label)
        if not shown or not rates:
            skipped.append(Skipped(label, NOT_SHOWN) if rates else _no_rate(subject, label))
            continue
        skipped += [never_shown(track) for track in hidden]
        for number, track in enumerate(shown):
            found = _about_object(subject, label, number, track, rates)
            if isinstance(found, Conversation):
                conversations.append(found)
            else:
                skipped.append(found)
    return conversations, skipped


def answer_frames(
    tracks: Sequence[VisibleTrack], sampled: SampledTimes, fps: int
) -> list[TrackFrame]:
    """Return the frames of an answer: every step of a rate, or for 0 both ends of each object."""
    if fps:
        return _frames(tracks, grid_moments(sampled.times_s, fps).values())
    return start_end_only(_frames(tracks, sampled.times_s))


def sequel_frames(
    track: VisibleTrack, sampled: SampledTimes, fps: int, start: InitialPoint
) -> list[TrackFrame]:
    """Return the frames of an answer that continues one object (number 0) after a given point."""
    frames = from_initial_points(answer_frames([track], sampled, fps), {0: start.time_s})
    return [frame for frame in frames if frame.points]


def _frames(tracks: Sequence[VisibleTrack], moments: Iterable[float]) -> list[TrackFrame]:
    times = frozenset(moments)
    frames: dict[float, dict[int, TrackPoint]] = {}
    for number, track in enumerate(tracks):
        for seen in track.sightings:
            if seen.time_s in times:
                at = frames.setdefault(written_time(seen.time_s), {})
                at.setdefault(number, TrackPoint(number, seen.xy_px))
    return [TrackFrame(time_s, tuple(frames[time_s].values())) for time_s in sorted(frames)]


def _about_labels(subject: Subject, rates: Sequence[int]) -> Questions:
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for label in subject.sample.labels(Track):
        shown, hidden = tracks_shown(subject, label)
        fps = _draw_rate(rates, subject.key(label))
        frames = answer_frames(shown, subject.clip, fps)
        problem = None if shown else NOT_SHOWN
        problem = problem or _problem(subject, frames, BETWEEN_STEPS)
        if problem is not None:
            skipped.append(Skipped(label, problem))
            continue
        skipped += [never_shown(track) for track in hidden]
        skipped += _between_steps(label, shown, frames)
        size, name = subject.clip.size_wh, subject.name(label)
        answer = format_tracks(frames, size_wh=size, label=name)
        conversations.append(_about_label(subject, label, answer, fps))
    for label in absent_labels(subject):
        fps = _draw_rate(rates, subject.key(label))
        conversations.append(_about_label(subject, label, NO_POINTS, fps))
    return conversations, skipped


def _about_label(subject: Subject, label: str, answer: str, fps: int) -> Conversation:
    style = "video_point_track_per_frame" if fps else "video_point_ground_start_end"
    question = with_style_prefix(style, _question(subject, subject.key(label), fps, label))
    return Conversation(subject.sample.id, label, question, answer, fps=fps)


def _about_object(
    subject: Subject, label: str, number: int, track: VisibleTrack, rates: Sequence[int]
) -> Conversation | Skipped:
    key = subject.key(label, number)
    fps = _draw_rate(rates, key)
    start = _draw_start(track, subject.clip, fps, number, key)
    frames = sequel_frames(track, subject.clip, fps, start)
    problem = _problem(subject, frames, NO_SEQUEL)
    if problem is not None:
        return Skipped(f"{label}, object {track.track_id}", problem)
    size, name = subject.clip.size_wh, subject.name(label)
    given = input_points(name, start.time_s, start.xy_px, size_wh=size)
    question = _question(subject, key, fps, label, input_points=given)
    question = with_style_prefix("video_single_point_track_per_frame", question)
    answer = format_tracks(frames, size_wh=size, label=name)
    return Conversation(subject.sample.id, label, question, answer, fps=fps, start=start)


def _question(subject: Subject, key: str, fps: int, label: str, **given: str) -> str:
    """Return a phrasing, one that states the rate unless it is the default rate."""
    needed = bool(fps) and fps != DEFAULT_FPS
    wordings = mentioning(subject.template.questions, "fps", key, needed=needed)
    return subject.fill(draw(wordings, key), label=label, fps=fps, **given)


def _draw_start(
    track: VisibleTrack, sampled: SampledTimes, fps: int, number: int, key: str
) -> InitialPoint:
    """Return the start of a question; the first sighting if no start has a continuation."""
    points = [
        InitialPoint(number, written_time(seen.time_s), seen.xy_px) for seen in track.sightings
    ]
    starts = [point for point in points if sequel_frames(track, sampled, fps, point)] or points[:1]
    rng = random.Random(f"{key}:start")
    return rng.choice(starts) if rng.random() < LATER_START_FRACTION else starts[0]


def _problem(subject: Subject, frames: Sequence[TrackFrame], empty: str) -> str | None:
    """Return why these frames cannot be an answer."""
    if not frames:
        return empty
    if sum(len(frame.points) for frame in frames) > subject.template.point_limit:
        return f"its answer exceeds max_points = {subject.template.max_points}"
    return None


def _draw_rate(rates: Sequence[int], key: str) -> int:
    return random.Random(f"{key}:rate").choice(rates) if rates else 0


def _rates_shown(subject: Subject) -> list[int]:
    """Return the template's rates whose every step the sampled frames show."""
    return [fps for fps in subject.template.fps if shows_rate(subject.clip.times_s, fps)]


def _no_rate(subject: Subject, label: str) -> Skipped:
    rates = " or ".join(map(str, subject.template.fps))
    reason = f"sampled frames miss some steps at {rates} fps"
    return Skipped(label, f"{reason} (clip too long for video.max_frames, or sampled too sparsely)")


def _between_steps(
    label: str, shown: Sequence[VisibleTrack], frames: Sequence[TrackFrame]
) -> list[Skipped]:
    """Report objects that are visible only between the steps of the rate."""
    written = {point.id for frame in frames for point in frame.points}
    return [
        Skipped(f"{label}, object {track.track_id}", BETWEEN_STEPS)
        for number, track in enumerate(shown)
        if number not in written
    ]
