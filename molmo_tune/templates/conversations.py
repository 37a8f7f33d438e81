"""A sample and the moments the model sees of it → questions and answers in words and numbers.

One conversation per label (or per written dialogue): the branches of the sample's message tree.
The template gives the words, `molmo_tune.grounding` writes the coordinates. Annotations that cannot
become an answer, because no sampled moment shows them, are returned and reported, not forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from molmo_tune.grounding.text import (
    format_image_points,
    format_multi_image_points,
    format_tracks,
    format_video_points,
)
from molmo_tune.grounding.tracks import TrackFrame, TrackPoint
from molmo_tune.labels.points import shape_point
from molmo_tune.labels.sample import Dialogue, Instance, Sample
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.chat import with_style_prefix
from molmo_tune.templates.template import Template, draw_question, render
from molmo_tune.templates.visible import VisibleTrack, visible_tracks

SizeWH = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One question about a sample and its answer. ``label`` is empty for written dialogues."""

    sample_id: str
    label: str
    question: str
    answer: str

    @property
    def messages(self) -> tuple[str, str]:
        """Question and answer, as the encoder takes them."""
        return self.question, self.answer


@dataclass(frozen=True, slots=True)
class Unseen:
    """Labels of a sample that no sampled moment shows, so nothing can be asked about them."""

    sample_id: str
    labels: tuple[str, ...]


def video_conversations(
    sample: Sample, template: Template, sampled: SampledTimes, seed: int
) -> tuple[list[Conversation], Unseen]:
    """Conversations about a video, for the tasks `video_pointing` and `tracking`."""
    conversations, unseen = [], []
    for label in sample.labels():
        tracks = visible_tracks(sample, label, sampled)
        if not tracks:
            unseen.append(label)
            continue
        name = render(template.answer_label, {"label": label}, where=sample.id)
        if template.task == "tracking":
            answer = _track_answer(tracks, name, sampled, template.fps)
            style = "video_point_track_per_frame"
        else:
            answer = _pointing_answer(tracks, name, sampled.size_wh, template)
            style = "video_point"
        variables = {"label": label, "fps": template.fps}
        question = with_style_prefix(style, draw_question(template, seed, sample.id, variables))
        conversations.append(Conversation(sample.id, label, question, answer))
    return conversations, Unseen(sample.id, tuple(unseen))


def image_conversations(
    sample: Sample, template: Template, sizes_wh: Sequence[SizeWH], seed: int
) -> tuple[list[Conversation], Unseen]:
    """Conversations about one or several images, for the task `image_pointing`."""
    conversations, unseen = [], []
    for label in sample.labels():
        points = _image_points(sample, label, sizes_wh)
        if not any(points):
            unseen.append(label)
            continue
        name = render(template.answer_label, {"label": label}, where=sample.id)
        question = draw_question(template, seed, sample.id, {"label": label})
        answer = _image_answer(points, name, sizes_wh, template)
        conversations.append(Conversation(sample.id, label, question, answer))
    return conversations, Unseen(sample.id, tuple(unseen))


def written_conversations(sample: Sample, template: Template, seed: int) -> list[Conversation]:
    """The questions and answers that the labels themselves spell out."""
    return [
        Conversation(
            sample.id,
            "",
            with_style_prefix(
                note.style, draw_question(template, seed, sample.id, {"question": note.question})
            ),
            note.answer,
        )
        for note in sample.annotations
        if isinstance(note, Dialogue)
    ]


def first_sightings(
    tracks: Sequence[VisibleTrack],
) -> list[tuple[float, list[tuple[float, float]]]]:
    """Each object at the first moment that shows it: ``(time_s, points)`` in time order."""
    by_time: dict[float, list[tuple[float, float]]] = {}
    for track in tracks:
        first = track.sightings[0]
        by_time.setdefault(first.time_s, []).append(first.xy_px)
    return sorted(by_time.items())


def _pointing_answer(
    tracks: Sequence[VisibleTrack], name: str, size_wh: SizeWH, template: Template
) -> str:
    frames = first_sightings(tracks)
    return format_video_points(frames, size_wh=size_wh, label=name, mode=template.mode)


def _track_answer(
    tracks: Sequence[VisibleTrack], name: str, sampled: SampledTimes, fps: int
) -> str:
    frames: dict[float, list[TrackPoint]] = {time: [] for time in sampled.times_s}
    for track in tracks:
        for sighting in track.sightings:
            frames[sighting.time_s].append(TrackPoint(track.track_id, sighting.xy_px))
    on_grid = [
        TrackFrame(time, tuple(points)) for time, points in frames.items() if is_on_grid(time, fps)
    ]
    return format_tracks(on_grid, size_wh=sampled.size_wh, label=name)


def is_on_grid(time_s: float, fps: int) -> bool:
    """Whether a sampled moment lies on the grid of the asked rate (the last one often does not)."""
    return abs(time_s * fps - round(time_s * fps)) < 0.01 * fps


def _image_points(
    sample: Sample, label: str, sizes_wh: Sequence[SizeWH]
) -> list[list[tuple[float, float]]]:
    points: list[list[tuple[float, float]]] = [[] for _ in sizes_wh]
    for note in sample.annotations:
        if isinstance(note, Instance) and note.label == label:
            xy = shape_point(note.shape, sizes_wh[note.image_index])
            if xy is not None:
                points[note.image_index].append(xy)
    return points


def _image_answer(
    points: list[list[tuple[float, float]]],
    name: str,
    sizes_wh: Sequence[SizeWH],
    template: Template,
) -> str:
    if len(sizes_wh) == 1:
        return format_image_points(points[0], size_wh=sizes_wh[0], label=name, mode=template.mode)
    images = [
        (number, size, found)
        for number, (size, found) in enumerate(zip(sizes_wh, points, strict=True), start=1)
        if found
    ]
    return format_multi_image_points(images, label=name, mode=template.mode)
