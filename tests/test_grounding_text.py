"""Answer text: worked examples, corner cases of the parser, and round trips."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import molmo_tune
from molmo_tune.errors import UserError
from molmo_tune.grounding import (
    NO_TRACKS,
    TrackFrame,
    TrackPoint,
    count_out_of_frame,
    format_image_points,
    format_multi_image_points,
    format_time,
    format_tracks,
    format_video_points,
    from_initial_points,
    input_points,
    parse_count,
    parse_multi_image_points,
    parse_points,
    parse_tracks,
    start_end_only,
)

settings.register_profile("no clock", deadline=None)  # shared machines stall at times
settings.load_profile("no clock")

PERCENT = (100, 100)
THOUSAND = (1000, 1000)
MUGS = [(320, 240), (5, 470), (639, 0)]
GOALS = [(0.0, [(10, 20)]), (0.5, [(11, 21), (5, 50)]), (1.0, [(90, 1)])]


def ids_and_pixels(text, size_wh=THOUSAND, **options):
    return [(p.id, p.xy_px) for p in parse_points(text, size_wh=size_wh, **options)]


# ------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize(
    ("points", "size_wh", "options", "expected"),
    [  # the numbers are those of the worked examples in the design notes, section 1.6
        ([(10, 20)], PERCENT, {"label": "cat"}, '<points coords="1 1 100 200">cat</points>'),  # 1
        (  # 2
            [(10, 20)],
            PERCENT,
            {"label": "cat", "mode": "point_count"},
            'Counting the <points coords="1 1 100 200">cat</points> shows a total of 1.',
        ),
        (  # 3
            MUGS,
            (640, 480),
            {"label": "mug handles", "mode": "point_then_count"},
            'Counting the <points coords="1 1 008 979 2 500 500 3 998 000">mug handles</points> '
            "shows a total of 3.",
        ),
        (  # 4
            MUGS,
            (640, 480),
            {"label": "mug handles", "mode": "count_then_point"},
            'There are 3 <points coords="1 1 008 979 2 500 500 3 998 000">mug handles</points>.',
        ),
        (MUGS, (640, 480), {"label": "mug handles", "mode": "count"}, "3"),  # 5
        ([], PERCENT, {"label": "unicorn", "mode": "count_point"}, "There are none."),  # 6
        ([], PERCENT, {"label": "unicorn", "mode": "point"}, "There are none."),  # 6
        (  # 7
            [(0, 0), (100, 100), (100, 0), (0, 100)],
            PERCENT,
            {"label": "corners"},
            '<points coords="1 1 000 000 2 000 1000 3 1000 000 4 1000 1000">corners</points>',
        ),
        (  # 8
            [(50, 80), (50, 20), (50, 50), (49.99, 90)],
            PERCENT,
            {"label": "x"},
            '<points coords="1 1 500 200 2 500 500 3 500 800 4 500 900">x</points>',
        ),
        (  # 9
            [(50.05, 10), (50.15, 10), (50.25, 10), (0.05, 0.15), (99.95, 99.99)],
            PERCENT,
            {"label": "h"},
            '<points coords="1 1 000 002 2 500 100 3 501 100 4 502 100 5 1000 1000">h</points>',
        ),
        (
            [(1, 2)],
            PERCENT,
            {"label": 'say "hi"'},
            '<points coords="1 1 010 020">say "hi"</points>',
        ),
        (  # 12
            [(1, 2)],
            PERCENT,
            {"label": "lbl", "alt": "other alt"},
            '<points alt="other alt" coords="1 1 010 020">lbl</points>',
        ),
        (  # an empty alt is written, duplicates are kept
            [(1, 2), (1, 2)],
            PERCENT,
            {"label": "l", "alt": "", "mode": None},
            '<points alt="" coords="1 1 010 020 2 010 020">l</points>',
        ),
    ],
)
def test_image_points(points, size_wh, options, expected):
    assert format_image_points(points, size_wh=size_wh, **options) == expected


@pytest.mark.parametrize(
    ("point", "ours", "reference"),
    [  # example 10 and the corners of the rule: the reference leaves a bad y alone
        ((101, 50), "1000 500", "1000 500"),
        ((50, 101), "500 1000", "500 1010"),
        ((101, 101), "1000 1000", "1010 1010"),
        ((-1, 50), "000 500", "000 500"),
        ((50, -1), "500 000", "500 -10"),
        ((-5, -5), "000 000", "-50 -50"),
        ((100, 0), "1000 000", "1000 000"),
    ],
)
def test_clamping(point, ours, reference):
    for ai2_compat, expected in ((False, ours), (True, reference)):
        text = format_image_points([point], size_wh=PERCENT, label="x", ai2_compat=ai2_compat)
        assert text == f'<points coords="1 1 {expected}">x</points>'


def test_count_out_of_frame():
    assert (
        count_out_of_frame([(0, 0), (640, 480), (640.1, 3), (3, -0.1), (-1, -1)], (640, 480)) == 3
    )


def test_multi_image_points():
    two = [(1, PERCENT, [(10, 20), (5, 5)]), (2, PERCENT, [(90, 90)])]
    assert format_multi_image_points(two, label="dog", mode="point_then_count") == (  # 13
        'Counting the <points coords="1 1 050 050 2 100 200;2 3 900 900">dog</points> '
        "shows a total of 3."
    )
    sizes = [(2, (640, 480), [(320, 240)]), (5, (1024, 768), [(0, 0), (512, 384)])]
    assert format_multi_image_points(sizes, label="d") == (  # 14
        '<points coords="2 1 500 500;5 2 000 000 3 500 500">d</points>'
    )
    gap = [(1, PERCENT, [(10, 20)]), (2, PERCENT, []), (3, PERCENT, [(30, 40)])]
    assert format_multi_image_points(gap, label="e") == (  # 15
        '<points coords="1 1 100 200;2 ;3 2 300 400">e</points>'
    )
    assert format_multi_image_points([(1, PERCENT, []), (2, PERCENT, [])], label="e") == (
        "There are none."
    )
    assert format_multi_image_points(two, label="v1", separator="\t") == (  # 16
        '<points coords="1 1 050 050 2 100 200\t2 3 900 900">v1</points>'
    )


def test_video_points():
    tag = '<points coords="0.0 1 100 200;0.5 2 050 500 3 110 210;1.0 4 900 010">goal</points>'
    for mode, expected in {
        "point_count": f"Counting the {tag} shows a total of 4.",  # 17
        "count_point": f"There are 4 {tag}.",  # 18
        "counting": "4",
        None: tag,
    }.items():
        assert format_video_points(GOALS, size_wh=PERCENT, label="goal", mode=mode) == expected
    times = [(t, [(n, n)]) for n, t in enumerate((0.25, 0.75, 1.15, 59.95, 3600.5), start=1)]
    assert format_video_points(times, size_wh=PERCENT, label="t") == (  # 19
        '<points coords="0.2 1 010 010;0.8 2 020 020;1.1 3 030 030;60.0 4 040 040;'
        '3600.5 5 050 050">t</points>'
    )
    unsorted = [(2.0, [(1, 1)]), (2.0, []), (0.5, [(2, 2)])]
    assert format_video_points(unsorted, size_wh=PERCENT, label="u") == (
        '<points coords="2.0 1 010 010;2.0 ;0.5 2 020 020">u</points>'
    )


def test_input_points_example_30():
    assert input_points("dog", 1 / 3, (120, 52), size_wh=(640, 360)) == (
        '<points coords="0.3 1 188 144">dog</points>'
    )


@pytest.mark.parametrize(
    ("time_s", "expected"),
    [
        (0.05, "0.1"),
        (0.15, "0.1"),
        (0.25, "0.2"),
        (0.35, "0.3"),
        (0.45, "0.5"),
        (0.75, "0.8"),
        (1 / 6, "0.2"),
        (59.95, "60.0"),
        (3600, "3600"),  # an int stays one
        (np.float64(0.25), "0.2"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        ("01:02.30", "62.3"),
        ("01:02:03.40", "3723.4"),
        ("4.25", "4.2"),
        ("12:34", "12:34"),  # no fraction: not a time of these spellings, kept
        ("later", "later"),
        (-0.01, "0.0"),  # never -0.0, which would make the answer unreadable
    ],
)
def test_times(time_s, expected):
    assert format_time(time_s) == expected


def test_unwritable_input_raises():
    for time_s in (-0.1, -3, float("nan"), float("inf"), "nan"):
        with pytest.raises(UserError, match="seconds from the start"):
            format_time(time_s)
    assert format_time(-1.0, ai2_compat=True) == "-1.0"
    for size_wh in ((0, 100), (100, -1), (float("nan"), 1)):
        with pytest.raises(UserError, match="positive width and height"):
            format_image_points([(1, 1)], size_wh=size_wh, label="x")
    with pytest.raises(UserError, match="two finite pixel coordinates"):
        format_image_points([(float("nan"), 1)], size_wh=PERCENT, label="x")
    with pytest.raises(UserError, match="one of point, pointing"):
        format_image_points([(1, 1)], size_wh=PERCENT, label="x", mode="points")


# ------------------------------------------------------------------------------------- tracks


def frame(time_s, **points):
    """``a=(1, 2)`` is visible, ``a=(1, 2, True)`` is occluded."""
    return TrackFrame(
        time_s, tuple(TrackPoint(i, (p[0], p[1]), len(p) == 3) for i, p in points.items())
    )


DOG = [frame(0.0, a=(259.2, 339.9)), frame(1.0, a=(138.3, 426.6)), frame(2.0, a=(248.4, 334.9))]
HIDDEN_DOG = [frame(0.0, a=(259.2, 339.9, True)), *DOG[1:]]


@pytest.mark.parametrize(
    ("frames", "coordinates"),
    [
        (DOG, "0.0 1 259 340;1.0 1 138 427;2.0 1 248 335"),  # 20
        (start_end_only(DOG), "0.0 1 259 340;2.0 1 248 335"),  # 21
        (from_initial_points(DOG, {"a": 0.0}), "1.0 1 138 427;2.0 1 248 335"),  # 22
        (start_end_only(HIDDEN_DOG), "2.0 1 248 335"),  # 23
        (  # 24: new ids by first visible appearance, then kept
            [
                frame(0.0, c=(500, 200), b=(200, 800), a=(200, 100)),
                frame(1.0, c=(50, 50), a=(900, 900), e=(100, 100), d=(60, 60)),
            ],
            "0.0 1 200 100 2 200 800 3 500 200;1.0 1 900 900 3 050 050 4 060 060 5 100 100",
        ),
        (  # 25: gap and late objects
            [
                frame(0.0, a=(100, 500)),
                frame(1.0),
                frame(2.0, b=(200, 200)),
                frame(3.0, a=(300, 300), b=(400, 400), c=(10, 10)),
            ],
            "0.0 1 100 500;2.0 2 200 200;3.0 1 300 300 2 400 400 3 010 010",
        ),
        ([DOG[2], DOG[0], DOG[1]], "0.0 1 259 340;1.0 1 138 427;2.0 1 248 335"),  # 26
        (  # 28
            [frame(n / 6, a=(100 + n, 500)) for n in range(5)],
            "0.0 1 100 500;0.2 1 101 500;0.3 1 102 500;0.5 1 103 500;0.7 1 104 500",
        ),
        (
            [frame(2.0 * n, a=(100, 500)) for n in range(3)],
            "0.0 1 100 500;2.0 1 100 500;4.0 1 100 500",
        ),
        (  # spelled times are sorted by what they mean
            [frame("00:10.00", a=(1, 1)), frame("00:9.50", a=(2, 2))],
            "9.5 1 002 002;10.0 1 001 001",
        ),
        (  # same time: two groups, unless merged by start and end
            [frame(1.0, a=(100, 500)), frame(1.0, b=(200, 500))],
            "1.0 1 100 500;1.0 2 200 500",
        ),
        (
            start_end_only([frame(1.0, a=(100, 500)), frame(1.0, b=(200, 500))]),
            "1.0 1 100 500 2 200 500",
        ),
        (  # all objects of a continuing frame are listed, also those not asked for
            from_initial_points(
                [*DOG[:1], frame(1.0, a=(1, 1), z=(2, 2)), frame(2.0, z=(3, 3))], {"a": 0}
            ),
            "1.0 1 001 001 2 002 002",
        ),
    ],
)
def test_tracks(frames, coordinates):
    expected = f'<tracks coords="{coordinates}">dog</tracks>'
    assert format_tracks(frames, size_wh=THOUSAND, label="dog") == expected


def test_tracks_without_visible_points():
    hidden = [frame(0.0, a=(1, 1, True)), frame(1.0)]
    options = {"size_wh": THOUSAND, "label": "dog"}
    assert format_tracks([], **options) == NO_TRACKS == "No tracks available."
    assert format_tracks(hidden, **options) == ""
    assert format_tracks(start_end_only([frame(1.0)]), **options) == ""
    assert format_tracks(from_initial_points(DOG, {"a": 2.0}), **options) == ""
    assert format_tracks(start_end_only([]), **options) == NO_TRACKS


# ------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("coordinates", "expected"),
    [  # section 1.7
        *((f"1 1 100 200{s}2 2 300 400", [("1", 100, 200), ("2", 300, 400)]) for s in "\t:,;"),
        ("1 1 1000 1000 2 1001 500 3 000 000", [("1", 1000, 1000), ("3", 0, 0)]),
        ("1 1 -10 500", []),
        ("1 1 a 500", []),
        ("1 1 50 60 2 100 200", [("2", 100, 200)]),
        ("1 1 12345 200 2 300 400", [("2", 300, 400)]),
        ("1 1 200 12345 2 300 400", [("2", 300, 400)]),
        ("1 1 200 1234 300 400", []),  # the 1234 is used up as a coordinate outside the frame
        ("1 1 200 12345 300 400", [("5", 300, 400)]),  # what is left of a number can be an id
        ("1 1 100 200 2 300", [("1", 100, 200)]),
        ("1 1 100 200;2 ;3 2 300 400", [("1", 100, 200), ("2", 300, 400)]),
        ("1 1 100 200; 2 2 300 400", [("1", 100, 200)]),
        ("1  1 100 200", [("1", 100, 200)]),
        ("1 1  100 200", []),
        ("1 1 0100 200", [("1", 100, 200)]),
        ("1.5.2 1 100 200;2 2 300 400", [("2", 300, 400)]),
        (". 1 100 200;.. 1 100 200;2 2 300 400", [("2", 300, 400)]),
        ("9" * 400 + " 1 100 200;2 2 300 400", [("2", 300, 400)]),
        (" 1 1 100 200", []),
    ],
)
def test_points_inside_a_tag(coordinates, expected):
    found = ids_and_pixels(f'<points coords="{coordinates}">x</points>')
    assert found == [(number, (x, y)) for number, x, y in expected]


@pytest.mark.parametrize(
    ("text", "num_points"),
    [
        ('<points label="x" coords="1 1 100 200"/>', 1),
        ('<points coords="1 1 100 200" label="x">', 0),
        ("<points coords='1 1 100 200'>", 0),
        ('<point coords="1 1 100 200">', 0),
        ('<Points coords="1 1 100 200">', 0),
        ('<points\ncoords="1 1 100 200">', 0),
        ('<points\n coords="1 1 100 200">', 0),
        ('<points  coords="1 1 100 200">', 1),
        ('<points coords="1 1 100 200" >', 0),
        ('<points alt="q"q" coords="1 1 100 200">', 1),
        ('<points coords="1 1 100 200">a</points> <points coords="1 1 300 400">b</points>', 2),
        ('<points coords="1 1 100 200 <points coords="1 1 300 400">b</points>', 1),
        ('<points coords="1 1 100 200"> coords="1 1 300 400">', 1),  # no tag of its own
        ('<points> coords="1 1 100 200">', 1),  # anything may stand before the attribute
        ('<points coords="1 1 100 200 2 300 400', 0),
        ("There are none.", 0),
        ("", 0),
    ],
)
def test_tags(text, num_points):
    assert len(parse_points(text, size_wh=PERCENT)) == num_points


def test_pixels_and_frame_ids():
    text = '<points coords="1 1 900 700 2 900 800">t</points>'
    assert parse_points(text, size_wh=(100, 50)) == [(1.0, "1", (90, 35)), (1.0, "2", (90, 40))]


def test_invalid_frame_ids_raise_only_with_ai2_compat():
    sizes = {"sizes_wh": [(640, 480), (1000, 2000)]}
    for text, error in (
        ('<points coords="1.0 1 500 500;2 2 500 500">', ValueError),
        ('<points coords="3 1 500 500;2 2 500 500">', IndexError),
        ('<points coords="99999999999 1 500 500;2 2 500 500">', IndexError),
    ):
        with pytest.raises(error):
            parse_multi_image_points(text, **sizes, ai2_compat=True)
        assert parse_multi_image_points(text, **sizes) == [(2, "2", (500, 1000))]
    zero = '<points coords="0 1 500 500">'
    assert parse_multi_image_points(zero, **sizes) == []
    assert parse_multi_image_points(zero, **sizes, ai2_compat=True) == [(0, "1", (500, 1000))]
    with pytest.raises(ValueError, match=r"1\.5\.2"):
        parse_points('<points coords="1.5.2 1 100 200">', size_wh=PERCENT, ai2_compat=True)


def test_tracks_are_grouped_sorted_and_numbered():
    text = '<tracks coords="0.75 2 300 300 2 400 400;0.25 1 310 300;0.75 1 1001 1">d</tracks>'
    frames = parse_tracks(text, size_wh=THOUSAND, video_fps=2)
    assert [(f.time_s, f.frame_index, f.points) for f in frames] == [
        (0.25, 0, {"1": (310, 300)}),  # 0.5 rounds to even
        (0.75, 2, {"2": (300, 300)}),  # the first entry of an id wins
    ]


def test_truncated_answer_yields_all_points_before_its_last_number():
    """For every truncation of an answer, the parser finds the complete points and no others."""
    text = format_video_points(
        [(0.5, [(10, 20), (100, 100)]), (12.0, [(30, 40)]), (12.5, [(50, 60)])],
        size_wh=PERCENT,
        label="x",
        mode="point_count",
    )
    whole = parse_points(text, size_wh=PERCENT)
    closed = text.index('"', text.index('="') + 2)
    for end in range(len(text) + 1):
        found = parse_points(text[:end], size_wh=PERCENT, tolerant=True)
        assert found == whole[: len(found)]
        assert (len(found) == len(whole)) == (end > closed)
    for end in range(closed + 2):
        assert parse_points(text[:end], size_wh=PERCENT) == []
    cut = '<points coords="1 1 100 200 2 300 400'
    assert ids_and_pixels(cut, tolerant=True) == [("1", (100, 200))]
    assert ids_and_pixels(cut + ";2", tolerant=True) == [("1", (100, 200)), ("2", (300, 400))]
    assert ids_and_pixels(cut + " fish", tolerant=True) == []


@pytest.mark.parametrize(
    ("text", "ours", "reference"),
    [
        ("5", 5, 5),
        (" 12. ", 12, 12),
        ("Counting the x shows a total of 12.", 12, 12),
        ("a total of 3 dogs and a total of 4 cats", 3, 3),
        ("The total number of big red cats is: 7", 7, 7),
        ("the total number is: 7.", 7, 7),
        ("There are none.", 0, None),
        ("none", 0, None),
        ('There are 3 <points coords="1 1 100 200">x</points>.', 3, None),
        ("there are 1 x.", 1, None),
        ("no idea", None, None),
        ("", None, None),
        ("9" * 5000, None, None),
        ("a total of " + "9" * 5000, None, None),
    ],
)
def test_counts(text, ours, reference):
    assert parse_count(text) == ours
    assert parse_count(text, ai2_compat=True) == reference


# --------------------------------------------------------------------------------- properties

sides = st.integers(1, 8000)
fractions = st.floats(0, 1)
labels = st.text(max_size=30).filter(lambda text: 'coords="' not in text)
tenths = st.integers(0, 40_000).map(lambda tenth: tenth / 10)


@given(
    size_wh=st.tuples(sides, sides),
    frames=st.dictionaries(
        tenths, st.lists(st.tuples(fractions, fractions), max_size=6), max_size=6
    ),
    label=labels,
    mode=st.sampled_from(["point", "point_count", "count_point"]),
)
def test_points_round_trip(size_wh, frames, label, mode):
    pixels = [
        (time_s, [(x * size_wh[0], y * size_wh[1]) for x, y in points])
        for time_s, points in frames.items()
    ]
    text = format_video_points(pixels, size_wh=size_wh, label=label, mode=mode)
    found = parse_points(text, size_wh=size_wh)
    assert [p.id for p in found] == [str(n + 1) for n in range(len(found))]
    expected = [(time_s, sorted(points)) for time_s, points in pixels]
    assert [p.frame_id for p in found] == [t for t, points in expected for _ in points]
    for axis in (0, 1):  # order may differ between points that round alike
        ours = sorted((p.frame_id, p.xy_px[axis]) for p in found)
        theirs = sorted((t, xy[axis]) for t, points in expected for xy in points)
        for (_, read), (_, written) in zip(ours, theirs, strict=True):
            assert abs(read - written) <= size_wh[axis] / 1000


@given(
    size_wh=st.tuples(sides, sides),
    frames=st.dictionaries(
        tenths,
        st.dictionaries(
            st.integers(0, 4),
            st.tuples(st.floats(0.01, 0.19), fractions, st.booleans()),
            max_size=5,
        ),
        max_size=8,
    ),
)
def test_tracks_round_trip(size_wh, frames):
    """Object n stays in the n-th fifth of the width, so a parsed point identifies its object."""
    visible = {
        time_s: {n: (n / 5 + x, y) for n, (x, y, hidden) in at.items() if not hidden}
        for time_s, at in frames.items()
    }
    labeled = [
        TrackFrame(
            time_s,
            tuple(
                TrackPoint(f"id {n}", ((n / 5 + x) * size_wh[0], y * size_wh[1]), hidden)
                for n, (x, y, hidden) in at.items()
            ),
        )
        for time_s, at in frames.items()
    ]
    text = format_tracks(labeled, size_wh=size_wh, label="x")
    read = {f.time_s: f.points for f in parse_tracks(text, size_wh=size_wh, video_fps=10)}
    assert read.keys() == {time_s for time_s, at in visible.items() if at}
    object_of: dict[str, int] = {}
    for time_s, points in read.items():
        assert len(points) == len(visible[time_s])
        for number, (x_px, y_px) in points.items():
            x, y = x_px / size_wh[0], y_px / size_wh[1]
            written = visible[time_s][object_of.setdefault(number, int(x * 5))]
            assert abs(x - written[0]) <= 0.001
            assert abs(y - written[1]) <= 0.001
    assert sorted(object_of, key=int) == [str(n + 1) for n in range(len(object_of))]
    assert len(set(object_of.values())) == len(object_of)


def naive_points(text):
    """The three searches of section 1.7, as described there; slow on hostile text."""
    found = []
    for tag in re.finditer(r'<(?:points|tracks).*? coords="([0-9\t:;, .]+)"/?>', text):
        for group in re.finditer(r"(?:^|[\t:,;])([0-9.]+) ([0-9. ]+)", tag[1]):
            for point in re.finditer(r"([0-9]+) ([0-9]{3,4}) ([0-9]{3,4})", group[2]):
                x, y = int(point[2]), int(point[3])
                if x <= 1000 and y <= 1000:
                    found.append((group[1], point[1], x, y))
    return found


PIECES = (
    ["<points", "<tracks", ' coords="', '">', '"/>', '"', "\n", "x"],
    [" ", ";", "\t", ",", ":", ".", "1", "1 ", "1000", "12345 "],
    ["2 100 200", "1 1 100 200", " 300 400", "0.5 3 001 999"],
)
pieces = st.lists(st.sampled_from([p for row in PIECES for p in row]), max_size=40).map("".join)


@settings(max_examples=500)
@given(text=pieces)
def test_parser_equals_three_nested_searches(text):
    """With valid frame ids; for others, the documented deviation applies."""
    expected = [
        (float(frame_id), number, x, y)
        for frame_id, number, x, y in naive_points(text)
        if frame_id.count(".") <= 1 and frame_id != "."
    ]
    found = parse_points(text, size_wh=(1, 1))
    assert [
        (p.frame_id, p.id, round(p.xy_px[0] * 1000), round(p.xy_px[1] * 1000)) for p in found
    ] == (expected)


def read_every_way(text):
    for tolerant in (False, True):
        parse_points(text, size_wh=(640, 480), tolerant=tolerant)
        parse_tracks(text, size_wh=(640, 480), video_fps=29.97, tolerant=tolerant)
        parse_multi_image_points(text, sizes_wh=[(640, 480), (10, 10)], tolerant=tolerant)
    parse_count(text)
    parse_count(text, ai2_compat=True)


@settings(max_examples=300)
@given(text=st.one_of(st.text(), pieces, pieces.map(lambda t: f'<points coords="{t}">x</points>')))
def test_parser_never_raises(text):
    read_every_way(text)


def test_parser_never_raises_on_ten_thousand_mutations():
    rng = random.Random(20260318)
    answers = [
        format_video_points(GOALS, size_wh=PERCENT, label="goal", mode="point_count"),
        format_image_points(MUGS, size_wh=(640, 480), label="mugs", mode="count_point"),
        format_multi_image_points([(1, PERCENT, MUGS[:2]), (2, PERCENT, MUGS)], label="m"),
        format_tracks(DOG, size_wh=THOUSAND, label="dog"),
        "There are none.",
    ]
    alphabet = '0123456789 .;:,\t\n"<>/pointsrack=é٣\x00'
    for _ in range(10_000):
        text = list(rng.choice(answers))
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(text) + 1)
            text[at : at + rng.randint(0, 3)] = rng.choices(alphabet, k=rng.randint(0, 3))
        read_every_way("".join(text))


# -------------------------------------------------------------------------------- architecture


def test_only_one_module_spells_grounding_text():
    package = Path(molmo_tune.__file__).parent
    holders = [p for p in package.rglob("*.py") if "coords=" in p.read_text(encoding="utf-8")]
    assert holders == [package / "grounding" / "text.py"]


def test_grounding_imports_no_other_subpackage_and_no_torch():
    code = (
        "import sys, molmo_tune.grounding as g; "
        "print(*(m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers') or "
        "m.startswith('molmo_tune.') and m.split('.')[1] not in ('errors', 'grounding')))"
    )
    root = Path(molmo_tune.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
