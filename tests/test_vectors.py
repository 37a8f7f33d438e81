"""The reference's behavior, record by record, and the runner of records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molmo_tune.grounding import TrackFrame, TrackPoint
from molmo_tune.templates.chat import with_style_prefix
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


def test_default_mode_parses_the_same_and_never_raises():
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


# ------------------------------------------------------- the reference's frames beyond the records


def at(*times):
    return [TrackFrame(t, (TrackPoint("a", (n, n)),)) for n, t in enumerate(times)]


def times_of(frames):
    return [frame.time_s for frame in frames]


def test_frames_in_video():
    frames = at(0.0, 0.5, 1.009, 1.511, "00:02.00")
    assert times_of(frames_in_video(frames, [2.0, 0.0, 1.0, 1.5])) == [0.0, 1.009, "00:02.00"]
    assert frames_in_video(frames, []) == []


def test_frames_on_grid():
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


def test_style_tag_and_question_are_joined_by_one_space():
    assert with_style_prefix("video_point_ground_start_end", "Mark the dog.") == (
        "video_point_ground_start_end: Mark the dog."
    )
    assert with_style_prefix("pointing", "Point to the dog.") == "Point to the dog."
