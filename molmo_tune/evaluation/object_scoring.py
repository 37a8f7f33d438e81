"""Scores of answers about objects: points, counts and tracks.

*Points.* Predicted and labeled points are paired by distance. A pair is a hit if the point is in
the object (`molmo_tune.evaluation.truth`); in a video, also at a sampled time that shows it.
*Counts.* If the answer has points, they are scored as points, and the count is scored in addition:
for images by the number of points, for videos by the number stated, as in the reference. If the
answer is only a number, its correctness is the score. *Tracks.* Frame by frame, with HOTA for ids:
at the requested rate; at both ends of each object; or after a given point.

A truncated answer is parsed up to its last complete point.
"""

from __future__ import annotations

from collections.abc import Sequence

from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.answer_points import points_of
from molmo_tune.evaluation.scores import Score, match_score, pointing_score
from molmo_tune.evaluation.truth import (
    clip_of,
    region_of,
    regions_of,
    shapes_on,
    tracks_of,
)
from molmo_tune.grounding.counting import (
    CountScore,
    parse_count,
    score_image_count,
    score_video_count,
)
from molmo_tune.grounding.pointing import (
    PointingScore,
    Region,
    score_hits,
    score_image_pointing,
    score_video_pointing,
)
from molmo_tune.grounding.text import ParsedPoint, parse_tracks
from molmo_tune.grounding.times import written_time
from molmo_tune.grounding.tracking import by_frame, score_tracking
from molmo_tune.grounding.tracks import TrackFrame
from molmo_tune.labels.geometry.points import shape_point
from molmo_tune.labels.sample import Shape
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.pointing import first_sightings
from molmo_tune.templates.tracking import answer_frames, sequel_frames
from molmo_tune.templates.visible import VisibleTrack

WRITTEN_FPS = 10  # times are written in tenths, so each of them is a frame at this rate


def score_video_points(item: Item, conversation: Conversation, text: str) -> Score:
    """Score points and counts in a video."""
    tracks, clip = tracks_of(item, conversation.label), clip_of(item)
    count = score_video_count(parse_count(text), len(tracks))
    if item.template.mode == "count":
        return match_score(item.template.task, float(count.is_correct), _count_metrics(count))
    predicted = points_of(item, text)
    firsts = [first_sightings([track])[0] for track in tracks]
    score = score_video_pointing(
        [(point.frame_id, *point.xy_px) for point in predicted],
        [(time_s, *points[0]) for time_s, points in firsts],
        [regions_of(track, clip.size_wh, item.template.point) for track in tracks],
        duration_s=clip.duration_s,
        size_wh=clip.size_wh,
    )
    more = _count_metrics(count) if item.template.counts else {}
    return pointing_score(item.template.task, score, more)


def score_image_points(item: Item, conversation: Conversation, text: str) -> Score:
    """Score points and counts on the images of the question."""
    task, numbers = item.template.task, conversation.image_numbers
    num_objects = sum(len(shapes_on(item, conversation.label, n - 1)) for n in numbers)
    predicted = points_of(item, text)
    if item.template.mode == "count":
        stated = parse_count(text)
        count = score_image_count(len(predicted) or None if stated is None else stated, num_objects)
        return match_score(task, float(count.is_correct), _count_metrics(count))
    count = score_image_count(len(predicted), num_objects)
    score = _score_images(item, conversation, predicted)
    return pointing_score(task, score, _count_metrics(count) if item.template.counts else {})


def score_tracks(item: Item, conversation: Conversation, text: str) -> Score:
    """Score tracks at the rate of the question, or without one at both ends of each object."""
    tracks, clip, fps = tracks_of(item, conversation.label), clip_of(item), conversation.fps
    return _score_frames(item, tracks, answer_frames(tracks, clip, fps), fps or WRITTEN_FPS, text)


def score_continued_track(item: Item, conversation: Conversation, text: str) -> Score:
    """Score the continuation of one object."""
    start, clip, fps = conversation.start, clip_of(item), conversation.fps
    if start is None:
        raise ValueError(f"{item.sample.id}: the question gives no starting point")
    number = start.id if isinstance(start.id, int) else -1
    track = tracks_of(item, conversation.label)[number]
    return _score_frames(item, [track], sequel_frames(track, clip, fps, start), fps, text)


def _count_metrics(count: CountScore) -> dict[str, float]:
    return {
        "count_accuracy": float(count.is_correct),
        "count_close_accuracy": float(count.is_close),
        "count_valid": float(count.is_valid),
    }


def _score_images(
    item: Item, conversation: Conversation, predicted: Sequence[ParsedPoint]
) -> PointingScore:
    """Score all images together; any point on an image outside the question is wrong."""
    num_hits = num_predicted = num_objects = 0
    for number, size in enumerate(item.sizes_wh, start=1):
        is_in_question = number in conversation.image_numbers
        shapes = shapes_on(item, conversation.label, number - 1) if is_in_question else []
        points = [point.xy_px for point in predicted if point.frame_id == number]
        rule = item.template.point
        centers = [xy for xy in (shape_point(s, size, rule) for s in shapes) if xy is not None]
        score = score_image_pointing(points, centers, [region_of(s, size, rule) for s in shapes])
        num_hits += score.num_hits
        num_predicted += score.num_predicted
        num_objects += score.num_objects
    return score_hits(num_hits, num_predicted, num_objects)


def _score_frames(
    item: Item,
    tracks: Sequence[VisibleTrack],
    frames: Sequence[TrackFrame],
    fps: int,
    text: str,
) -> Score:
    """Score the frames of an answer, numbered at `fps`, against the labeled frames."""
    size = clip_of(item).size_wh
    predicted = by_frame(parse_tracks(text, size_wh=size, video_fps=float(fps), tolerant=True))
    shapes: dict[tuple[object, object, tuple[float, float]], Shape] = {
        (number, written_time(seen.time_s), seen.xy_px): seen.shape
        for number, track in enumerate(tracks)
        for seen in track.sightings
    }
    truth: dict[int, dict[str, tuple[float, float]]] = {}
    regions: dict[str, dict[int, Region]] = {}
    for frame in frames:
        step = round(float(frame.time_s) * fps)
        for point in frame.points:
            truth.setdefault(step, {})[str(point.id)] = point.xy_px
            shape = shapes[point.id, frame.time_s, point.xy_px]
            regions.setdefault(str(point.id), {})[step] = region_of(
                shape, size, item.template.point
            )
    score = score_tracking(predicted, truth, regions)
    more = {"hota": score.hota.hota, "det_a": score.hota.det_a, "ass_a": score.hota.ass_a}
    return Score(item.template.task, score.precision, score.recall, score.f1, more)
