"""Tasks of ``format-vectors.json``: answers, times, parsing, chat text, complete track examples.

Uses of the reference's quirks (``ai2_compat``):

* formatting: only for a point outside its frame, because only then do the two differ;
* times: only below 0, which the package refuses to write;
* parsing: always, because the records contain exceptions that the default mode does not raise.
  ``test_vectors.py`` tests that it parses the same wherever the reference does not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from molmo_tune.grounding import text
from molmo_tune.grounding.times import format_time
from molmo_tune.grounding.tracks import (
    TrackFrame,
    TrackPoint,
    from_initial_points,
    start_end_only,
)
from molmo_tune.templates.chat import render_turns, style_prefix
from tests.vectors.labeled_frames import frames_in_video, frames_on_grid, visible_points

Input = dict[str, Any]
SEPARATORS = {"html-v1": "\t", "html-v2": ";"}


def _size(scale: float | Sequence[float]) -> tuple[float, float]:
    return (scale[0], scale[1]) if isinstance(scale, list) else (scale, scale)


def _leaves_frame(points: Sequence[Sequence[float]], size_wh: tuple[float, float]) -> bool:
    return text.count_out_of_frame(points, size_wh) > 0


def image_points(given: Input) -> str:
    size_wh = _size(given["scale"])
    return text.format_image_points(
        given["points"],
        size_wh=size_wh,
        label=given["label"],
        mode=given["mode"],
        alt=given.get("alt_text"),
        ai2_compat=_leaves_frame(given["points"], size_wh),
    )


def multi_image_points(given: Input) -> str:
    sizes = [_size(scale) for scale in given["scale"]]
    images = list(zip(given["image_indices"], sizes, given["points"], strict=True))
    return text.format_multi_image_points(
        images,
        label=given["label"],
        mode=given["mode"],
        alt=given.get("alt_text"),
        ai2_compat=any(_leaves_frame(points, size) for _, size, points in images),
        separator=SEPARATORS[given["pointing_format"]],
    )


def video_points(given: Input) -> str:
    size_wh = _size(given["scale"])
    return text.format_video_points(
        list(zip(given["timestamps"], given["points"], strict=True)),
        size_wh=size_wh,
        label=given["label"],
        mode=given["mode"],
        alt=given.get("alt_text"),
        ai2_compat=any(_leaves_frame(points, size_wh) for points in given["points"]),
        separator=SEPARATORS[given["pointing_format"]],
    )


def _frames(frames: list[Input]) -> list[TrackFrame]:
    return [
        TrackFrame(
            frame["time"],
            tuple(
                TrackPoint(p["id"], tuple(p["point"]), p.get("occluded", False))
                for p in frame["points"]
            ),
        )
        for frame in frames
    ]


def video_tracks(given: Input) -> str:
    size_wh = _size(given["scale"])
    frames = _frames(given["frames"])
    if given["start_end_only"]:
        frames = start_end_only(frames)
    if given["initial_points"] is not None:
        frames = from_initial_points(frames, {p["id"]: p["time"] for p in given["initial_points"]})
    points = [point.xy_px for frame in frames for point in frame.points]
    return text.format_tracks(
        frames,
        size_wh=size_wh,
        label=given["label"],
        alt=given.get("alt_text"),
        ai2_compat=_leaves_frame(points, size_wh),
        separator=SEPARATORS[given["pointing_format"]],
    )


def output_timestamp(given: Input) -> str:
    time = given["time"]
    return format_time(time, ai2_compat=not isinstance(time, str) and time < 0)


def read_points(given: Input, *, ai2_compat: bool = True) -> list[list[Any]]:
    points = text.parse_points(
        given["text"], size_wh=(given["width"], given["height"]), ai2_compat=ai2_compat
    )
    if given["with_ids"]:
        return [[p.frame_id, p.id, *p.xy_px] for p in points]
    return [[p.frame_id, *p.xy_px] for p in points]


def read_multi_image_points(given: Input, *, ai2_compat: bool = True) -> list[list[Any]]:
    sizes_wh = list(zip(given["widths"], given["heights"], strict=True))
    points = text.parse_multi_image_points(given["text"], sizes_wh=sizes_wh, ai2_compat=ai2_compat)
    return [[p.frame_id, p.id, *p.xy_px] for p in points]


def read_tracks(given: Input, *, ai2_compat: bool = True) -> list[Input]:
    frames = text.parse_tracks(
        given["text"],
        size_wh=(given["width"], given["height"]),
        video_fps=given["video_fps"],
        ai2_compat=ai2_compat,
    )
    return [
        {
            "time": frame.time_s,
            "frame": frame.frame_index,
            "points": [{"id": i, "point": list(xy)} for i, xy in frame.points.items()],
        }
        for frame in frames
    ]


# The first wording of each family; the records always use it.
PER_FRAME = "Track {target} in {fps} FPS."
START_END = (
    "For each '{target}' in this video, identify only its first and last appearances with "
    "precise coordinates."
)


def track_example(given: Input) -> Input:
    """Return question and answer of one tracking example, as in the reference's training."""
    size_wh, label, fps = (given["width"], given["height"]), given["label"], given["sampling_fps"]
    labeled = _frames(given["frames"])
    frames = frames_in_video(labeled, given["video_timestamps"])
    wording, target = PER_FRAME, label
    if given["style"] == "video_point_ground_start_end":
        wording, frames = START_END, start_end_only(frames)
    elif given["style"] == "video_single_point_track_per_frame" and labeled:
        start = (visible_points(frames, 0) or visible_points(labeled, 0))[0]
        target = text.input_points(label, start.time_s, start.xy_px, size_wh=size_wh)
        frames = from_initial_points(frames_on_grid(frames, fps), {start.id: start.time_s})
    else:
        frames = frames_on_grid(frames, fps)
    answer = text.format_tracks(frames, size_wh=size_wh, label=label)
    return {
        "prompt": wording.format(target=target, fps=int(fps)),
        "answer": answer if labeled else text.NO_POINTS,
    }


TASKS: dict[str, Callable[[Input], Any]] = {
    "image_points": image_points,
    "multi_image_points": multi_image_points,
    "video_points": video_points,
    "video_tracks": video_tracks,
    "output_timestamp": output_timestamp,
    "parse_points": read_points,
    "parse_multi_image_points": read_multi_image_points,
    "parse_tracks": read_tracks,
    "chat_messages": lambda given: render_turns(given["messages"]),
    "style_prefix": lambda given: style_prefix(given["style"]),
    "track_example": track_example,
}
