"""The reference's behavior, record by record, and the runner of records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molmo_tune.grounding import TrackFrame, TrackPoint, text
from molmo_tune.grounding.times import read_time, written_time
from molmo_tune.labels.sample import Media, Observation, Point, Sample, Track
from molmo_tune.media.clip import SampledTimes
from molmo_tune.templates.alignment import InitialPoint
from molmo_tune.templates.chat import with_style_prefix
from molmo_tune.templates.tracking import answer_frames, sequel_frames
from molmo_tune.templates.visible import visible_tracks
from tests.vectors import check, differs, format_tasks, load
from tests.vectors.__main__ import main
from tests.vectors.labeled_frames import (
    frames_in_video,
    frames_on_grid,
    snap_point_time,
    visible_points,
)
from tests.vectors.training_tasks import NEED_TOKENIZER

FOLDER = Path(__file__).parent / "data" / "vectors"
RECORDS = [
    pytest.param(record, id=f"{name}-{number}-{record['task']}")
    for name in ("format", "metric", "sampling", "image", "training")
    for number, record in enumerate(load(FOLDER / f"{name}-vectors.json"))
]


@pytest.mark.parametrize("record", RECORDS)
def test_record(record, request):
    if record["task"] in NEED_TOKENIZER:
        request.getfixturevalue("shared")
    assert check(record) is None


READERS = {
    "parse_points": format_tasks.read_points,
    "parse_multi_image_points": format_tasks.read_multi_image_points,
    "parse_tracks": format_tasks.read_tracks,
}


def test_our_own_mode_reads_the_same_and_never_raises():
    """Image number 0, which the reference takes for the last image, is the one intended change."""
    records = [r for r in load(FOLDER / "format-vectors.json") if r["task"] in READERS]
    changed = 0
    for record in records:
        ours = READERS[record["task"]](record["input"], ai2_compat=False)
        if "error" in record["output"] or 'coords="0 ' in record["input"]["text"]:
            assert ours == []
            changed += 1
        else:
            assert differs(ours, record["output"], 1e-9) is None
    assert 0 < changed < len(records) / 4


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [
        (1.0000001, 1.0, True),
        (1.001, 1.0, False),
        (1, 1.0, True),
        (1.0, 1, False),  # a count is not a measurement
        (True, 1, False),
        ("a", "a", True),
        ("a ", "a", False),
        ((1, 2), [1, 2], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, True),
        (None, False, False),
    ],
)
def test_comparing(actual, expected, same):
    assert (differs(actual, expected, 1e-6) is None) is same


def test_runner_reports_failures_and_counts(tmp_path, capsys):
    good = {"task": "output_timestamp", "input": {"time": 0.25}, "output": "0.2"}
    file = tmp_path / "records.json"
    unknown = {"task": "no such task", "input": {}, "output": ""}
    raising = {"task": "output_timestamp", "input": {}, "output": "0.2"}
    expected_error = raising | {"output": {"error": "KeyError"}}
    file.write_text(json.dumps([good, good | {"output": "0.3"}, unknown, raising, expected_error]))
    assert main([str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "FAILED records.json[1] output_timestamp: output: '0.2' is not '0.3'",
        "FAILED records.json[2] no such task: unknown task 'no such task'",
        "FAILED records.json[3] output_timestamp: raised KeyError: 'time'",
        "2 passed, 3 failed",
    ]
    file.write_text(json.dumps([good]))
    assert main([str(file)]) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed\n"
    assert main([]) == 2


# ------------------------------------------------------- training's choice of frames, and ours
# The reference chooses labeled frames (`tests.vectors.labeled_frames`), training sampled times.

TRACK_EXAMPLES = [
    record for record in load(FOLDER / "format-vectors.json") if record["task"] == "track_example"
]


def trained_on(given):
    """A record's answer by the functions that training calls."""
    observations = {}
    for frame in given["frames"]:
        for point in frame["points"]:
            time_s, shape = float(read_time(frame["time"])), Point(tuple(point["point"]))
            seen = Observation(time_s, -1, shape, occluded=point.get("occluded", False))
            observations.setdefault(point["id"], []).append(seen)
    label, size_wh = given["label"], (given["width"], given["height"])
    tracks = tuple(Track(str(id), label, tuple(seen)) for id, seen in observations.items())
    sample = Sample("clip", Media("video", (Path("clip.mp4"),)), tracks)
    times_s = tuple(given["video_timestamps"])
    sampled = SampledTimes(times_s, tuple(range(len(times_s))), size_wh, times_s[-1])
    shown, fps = visible_tracks(sample, label, sampled), int(given["sampling_fps"])
    if given["style"] == "video_single_point_track_per_frame":
        first = shown[0].sightings[0]
        start = InitialPoint(0, written_time(first.time_s), first.xy_px)
        frames = sequel_frames(shown[0], sampled, fps, start)
    else:
        is_per_frame = given["style"] == "video_point_track_per_frame"
        frames = answer_frames(shown, sampled, fps if is_per_frame else 0)
    return text.format_tracks(frames, size_wh=size_wh, label=label)


@pytest.mark.parametrize("record", TRACK_EXAMPLES, ids=lambda record: record["input"]["style"])
def test_training_chooses_the_frames_that_the_reference_chooses(record):
    assert trained_on(record["input"]) == record["output"]["answer"]


def test_training_and_the_reference_differ_for_objects_hidden_at_an_end():
    """The reference drops an end that is hidden; training takes the first visible moment."""
    given = next(r["input"] for r in TRACK_EXAMPLES if "start_end" in r["input"]["style"])
    hidden_first = [
        {"time": 0.0, "points": [{"id": 0, "point": [5, 5], "occluded": True}]},
        {"time": 0.5, "points": [{"id": 0, "point": [6, 6]}]},
        {"time": 1.0, "points": [{"id": 0, "point": [7, 7]}]},
    ]
    given = {**given, "frames": hidden_first, "video_timestamps": [0.0, 0.5, 1.0]}
    reference = format_tasks.track_example(given)["answer"]
    times = [
        [frame.time_s for frame in text.parse_tracks(answer, size_wh=(1, 1), video_fps=1)]
        for answer in (reference, trained_on(given))
    ]
    assert times == [[1.0], [0.5, 1.0]]


# ------------------------------------------------------- the reference's frames beyond the records


def at(*times):
    return [TrackFrame(t, (TrackPoint("a", (n, n)),)) for n, t in enumerate(times)]


def times_of(frames):
    return [frame.time_s for frame in frames]


def test_labeled_frames_meet_sampled_frames():
    frames = at(0.0, 0.5, 1.009, 1.511, "00:02.00")
    assert times_of(frames_in_video(frames, [2.0, 0.0, 1.0, 1.5])) == [0.0, 1.009, "00:02.00"]
    assert frames_in_video(frames, []) == []


def test_labeled_frames_meet_the_grid():
    assert times_of(frames_on_grid(at(*(n / 6 for n in range(13))), 2)) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert times_of(frames_on_grid(at(0.9, 1.0, 1.5, 1.75), 1)) == [1.0]
    thirds = [n / 3 for n in range(7, 40)]  # 7/3 divided by 1/3 is a little more than 7
    assert times_of(frames_on_grid(at(*thirds), 3)) == thirds
    assert frames_on_grid([], 2) == []
    with pytest.raises(Exception, match="a positive number of frames per second"):
        frames_on_grid(at(0.0), 0)


def test_visible_points_of_one_object():
    hidden = TrackFrame(0.0, (TrackPoint("a", (9, 9), occluded=True), TrackPoint("b", (8, 8))))
    found = visible_points([hidden, *at(0.5, 1.0)], "a")
    assert [(p.time_s, p.xy_px) for p in found] == [(0.5, (0, 0)), (1.0, (1, 1))]
    assert visible_points([hidden], "a") == []


def test_point_labels_snap_down_to_half_seconds():
    assert [snap_point_time(t, 10.0) for t in (10.0, 10.49, 10.5, 12.99)] == [0.0, 0.0, 0.5, 2.5]


def test_style_tag_and_question_are_joined_by_one_blank():
    assert with_style_prefix("video_point_ground_start_end", "Mark the dog.") == (
        "video_point_ground_start_end: Mark the dog."
    )
    assert with_style_prefix("pointing", "Point to the dog.") == "Point to the dog."
