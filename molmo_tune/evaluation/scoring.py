"""The truth of a question, and the score of an answer against it.

Truth comes from the same view of the labels that the training answers are made of
(`molmo_tune.templates.visible`). An object counts as found when the point lies in its shape: boxes
as they are drawn, clipped to the frame; labels that are only points by a disc of 2 % of the frame's
diagonal (`grounding.pointing.disc_around`). A video point must also name one of the sampled moments
that show the object.
"""

from __future__ import annotations

from dataclasses import dataclass

from molmo_tune.encoding.items import Item
from molmo_tune.grounding.answers import exact_match
from molmo_tune.grounding.pointing import (
    BoxRegion,
    PointingScore,
    Region,
    disc_around,
    f1_of,
    score_image_pointing,
    score_video_pointing,
)
from molmo_tune.grounding.text import (
    parse_multi_image_points,
    parse_points,
    parse_tracks,
)
from molmo_tune.grounding.times import format_time, read_time
from molmo_tune.grounding.tracking import by_frame, score_tracking
from molmo_tune.labels.points import clip_box, shape_point
from molmo_tune.labels.sample import Box, Instance, Shape
from molmo_tune.templates.conversations import Conversation, is_on_grid
from molmo_tune.templates.visible import VisibleTrack, visible_tracks

SizeWH = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Score:
    """Score of one answer; precision, recall and f1 are equal for exact-match questions."""

    task: str
    precision: float
    recall: float
    f1: float
    hota: float | None = None


def score_answer(item: Item, conversation: Conversation, text: str) -> Score:
    """Score what the model said to one question of an item.

    A truncated answer is read as far as its points are whole.
    """
    task = item.template.task
    if task == "video_pointing":
        return _of(task, _video_pointing(item, conversation.label, text))
    if task == "image_pointing":
        return _of(task, _image_pointing(item, conversation.label, text))
    if task == "tracking":
        return _tracking(item, conversation.label, text)
    match = float(exact_match(text, [conversation.answer]))
    return Score(task, match, match, match)


def _of(task: str, score: PointingScore) -> Score:
    return Score(task, score.precision, score.recall, score.f1)


def region_of(shape: Shape, size_wh: SizeWH) -> Region:
    """Where a point counts as a hit, in pixels of the frame."""
    if isinstance(shape, Box):
        clipped = clip_box(shape, size_wh) or shape
        return BoxRegion(clipped.xyxy_px)
    return disc_around(shape.xy_px, size_wh=size_wh)


def written_time(time_s: float) -> float:
    """A sampled time as an answer can spell it (one decimal)."""
    return float(read_time(format_time(float(time_s))))


def _tracks(item: Item, label: str) -> list[VisibleTrack]:
    if item.sampled is None:
        raise ValueError(f"{item.sample.id} is no video")
    return visible_tracks(item.sample, label, item.sampled)


def _video_pointing(item: Item, label: str, text: str) -> PointingScore:
    tracks, sampled = _tracks(item, label), item.sampled
    assert sampled is not None
    size = sampled.size_wh
    said = parse_points(text, size_wh=size, tolerant=True)
    return score_video_pointing(
        [(point.frame_id, *point.xy_px) for point in said],
        [(written_time(t.sightings[0].time_s), *t.sightings[0].xy_px) for t in tracks],
        [
            {written_time(seen.time_s): region_of(seen.shape, size) for seen in track.sightings}
            for track in tracks
        ],
        duration_s=sampled.duration_s,
        size_wh=size,
    )


def _image_pointing(item: Item, label: str, text: str) -> PointingScore:
    sizes = item.sizes_wh
    if len(sizes) == 1:
        said = [(1, p.xy_px) for p in parse_points(text, size_wh=sizes[0], tolerant=True)]
    else:
        parsed = parse_multi_image_points(text, sizes_wh=sizes, tolerant=True)
        said = [(int(p.frame_id), p.xy_px) for p in parsed]
    hits = predicted = objects = 0
    for number, size in enumerate(sizes, start=1):
        shapes = _shapes_on(item, label, number - 1)
        points = [xy for frame, xy in said if frame == number]
        centers = [xy for xy in (shape_point(s, size) for s in shapes) if xy is not None]
        score = score_image_pointing(points, centers, [region_of(s, size) for s in shapes])
        hits += score.num_hits
        predicted += score.num_predicted
        objects += score.num_objects
    precision = hits / predicted if predicted else float(objects == 0)
    recall = hits / objects if objects else float(predicted == 0)
    return PointingScore(precision, recall, f1_of(precision, recall), hits, predicted, objects)


def _shapes_on(item: Item, label: str, image_index: int) -> list[Shape]:
    size = item.sizes_wh[image_index]
    return [
        note.shape
        for note in item.sample.annotations
        if isinstance(note, Instance)
        and (note.label, note.image_index) == (label, image_index)
        and shape_point(note.shape, size) is not None
    ]


def _tracking(item: Item, label: str, text: str) -> Score:
    """Frames are counted on the grid of the asked rate, on which answers are written."""
    tracks, sampled, fps = _tracks(item, label), item.sampled, item.template.fps
    assert sampled is not None
    said = by_frame(
        parse_tracks(text, size_wh=sampled.size_wh, video_fps=float(fps), tolerant=True)
    )
    truth: dict[int, dict[str, tuple[float, float]]] = {}
    regions: dict[str, dict[int, Region]] = {}
    for track in tracks:
        for seen in track.sightings:
            if is_on_grid(seen.time_s, fps):
                frame = round(seen.time_s * fps)
                truth.setdefault(frame, {})[track.track_id] = seen.xy_px
                region = region_of(seen.shape, sampled.size_wh)
                regions.setdefault(track.track_id, {})[frame] = region
    score = score_tracking(said, truth, regions)
    return Score("tracking", score.precision, score.recall, score.f1, score.hota.hota)
