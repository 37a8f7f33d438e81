"""Scores, each against numbers worked out by hand, and invariants that must hold for any input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo_tune.grounding import (
    BoxRegion,
    EllipseRegion,
    MaskRegion,
    ScoredSpan,
    anls,
    average_precision,
    by_frame,
    count_accuracy,
    disc_around,
    exact_match,
    is_pointbench_correct,
    is_screenspot_correct,
    mean_average_precision,
    mean_with_interval,
    parse_tracks,
    recall_at_iou,
    relaxed_accuracy,
    score_image_count,
    score_image_pointing,
    score_tapvid,
    score_tracking,
    score_video_count,
    score_video_pointing,
    span_iou,
)
from molmo_tune.grounding.answers import edit_distance

settings.register_profile("no clock", deadline=None)  # shared machines stall at times
settings.load_profile("no clock")


def mask(width, height, left, top, right, bottom):
    pixels = np.zeros((height, width), dtype=bool)
    pixels[top:bottom, left:right] = True
    return MaskRegion(pixels)


# ----------------------------------------------------------------------------------- pointing


def test_a_mask_is_asked_at_the_nearest_pixel():
    region = mask(10, 10, 2, 2, 5, 5)  # pixels 2, 3, 4
    assert [region.contains((x, 3)) for x in (1.49, 1.51, 4.5, 4.51)] == [False, True, True, False]
    for outside in ((-1, 3), (3, -1), (10, 3), (3, 10), (1e9, 1e9)):
        assert not region.contains(outside)
    assert not mask(10, 10, 0, 0, 10, 10).contains((9.6, 3))  # rounds to column 10


def test_boxes_ellipses_and_discs():
    box = BoxRegion((10, 20, 30, 60))
    assert box.contains((10, 60))
    assert not box.contains((9.9, 40))
    ellipse = EllipseRegion.in_box((10, 20, 30, 60))
    assert ellipse.contains((20, 60))
    assert not ellipse.contains((11, 21))
    assert EllipseRegion.in_box((5, 5, 5, 9)).contains((5, 7))
    assert disc_around((0, 0), object_area_px2=400).contains((10, 0))
    assert not disc_around((0, 0), object_area_px2=400).contains((10.1, 0))
    assert disc_around((0, 0), size_wh=(640, 480)).radii_px == (16, 16)
    with pytest.raises(ValueError, match="needs object_area_px2 or size_wh"):
        disc_around((0, 0))
    with pytest.raises(ValueError, match="not positive"):
        disc_around((0, 0), object_area_px2=0)


LEFT, RIGHT = BoxRegion((0, 0, 10, 10)), BoxRegion((20, 0, 30, 10))


@pytest.mark.parametrize(
    ("predicted", "hits", "precision", "recall"),
    [
        ([(5, 5), (25, 5)], 2, 1, 1),
        ([(25, 5), (5, 5)], 2, 1, 1),  # order does not matter
        ([(5, 5)], 1, 1, 0.5),
        ([(5, 5), (25, 5), (50, 50)], 2, 2 / 3, 1),
        ([(5, 5), (6, 5)], 1, 0.5, 0.5),  # an object counts once
        ([(100, 100)], 0, 0, 0),
        ([], 0, 0, 0),
    ],
)
def test_image_pointing(predicted, hits, precision, recall):
    score = score_image_pointing(predicted, [(5, 5), (25, 5)], [LEFT, RIGHT])
    assert (score.num_hits, score.num_predicted, score.num_objects) == (hits, len(predicted), 2)
    assert (score.precision, score.recall) == pytest.approx((precision, recall))
    f1 = 2 * precision * recall / (precision + recall) if hits else 0
    assert score.f1 == pytest.approx(f1, abs=1e-9)


def test_only_the_matched_object_counts():
    """The distance decides the pair before the region is asked, as in Ai2's rule."""
    wide = BoxRegion((0, 0, 100, 10))
    score = score_image_pointing([(60, 5)], [(5, 5), (70, 20)], [wide, BoxRegion((65, 15, 75, 25))])
    assert score.num_hits == 0


def test_pointing_without_objects():
    assert score_image_pointing([], [], []).f1 == 1
    assert score_image_pointing([(1, 1)], [], []).f1 == 0
    with pytest.raises(ValueError, match="1 ground-truth points but 2 regions"):
        score_image_pointing([], [(1, 1)], [LEFT, RIGHT])


def test_video_pointing_needs_the_exact_time():
    def score(*predicted):
        return score_video_pointing(
            predicted,
            [(0.5, 5, 5), (3.0, 25, 5)],
            [{0.5: LEFT, 1.0: LEFT}, {3.0: RIGHT}],
            duration_s=10,
            size_wh=(100, 100),
        )

    assert score((1.0, 5, 5), (3.0, 25, 5)).f1 == pytest.approx(1)
    assert score((1.1, 5, 5), (3.0, 25, 5)).num_hits == 1
    assert score((3.0, 5, 5), (0.5, 25, 5)).num_hits == 0
    assert score().f1 == 0
    with pytest.raises(ValueError, match="1 ground-truth points but 0 objects"):
        score_video_pointing([], [(0, 0, 0)], [], duration_s=1, size_wh=(1, 1))


def test_pointbench_and_screenspot():
    region = mask(10, 10, 2, 2, 5, 5)
    assert is_pointbench_correct([(4.9, 4.9), (2.0, 2.0)], region)  # cut to 4, not rounded to 5
    assert not is_pointbench_correct([(4.9, 4.9), (1.9, 2.0)], region)
    assert not is_pointbench_correct([], region)
    assert is_screenspot_correct([(10, 10), (99, 99)], (0, 0, 10, 10))
    assert not is_screenspot_correct([(99, 99), (5, 5)], (0, 0, 10, 10))
    assert not is_screenspot_correct([], (0, 0, 10, 10))


def test_mean_with_interval():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    mean = mean_with_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert mean.mean == pytest.approx(values.mean())
    assert mean.high - mean.mean == pytest.approx(half, rel=0.15)
    assert mean.mean - mean.low == pytest.approx(half, rel=0.15)
    assert mean == mean_with_interval(values) != mean_with_interval(values, seed=1)
    assert mean_with_interval([1, 1, 1]).low == 1
    with pytest.raises(ValueError, match="at least one sample"):
        mean_with_interval([])


# ----------------------------------------------------------------------------------- counting


def test_count_margins():
    assert score_image_count(4, 5).is_close
    assert not score_image_count(41, 43).is_close
    assert [score_video_count(n, 43).is_close for n in (39, 40, 46, 47)] == [
        False,
        True,
        True,
        False,
    ]
    assert [score_video_count(n, 19).is_close for n in (17, 18)] == [False, True]
    unread = score_video_count(None, 0)
    assert (unread.is_valid, unread.is_correct, unread.is_close) == (False, False, False)


def test_count_accuracy():
    scores = [score_video_count(n, 5) for n in (5, 6, 9, None)]
    accuracy = count_accuracy(scores)
    assert (accuracy.accuracy, accuracy.close_accuracy, accuracy.valid) == (0.25, 0.5, 0.75)
    assert accuracy.num_samples == 4
    with pytest.raises(ValueError, match="at least one sample"):
        count_accuracy([])


# ----------------------------------------------------------------------------------- tracking

A, B = (5.0, 5.0), (25.0, 5.0)
TWO = {frame: {"a": A, "b": B} for frame in range(4)}
REGIONS = {"a": dict.fromkeys(range(4), LEFT), "b": dict.fromkeys(range(4), RIGHT)}


def named(truth, **names):
    return {frame: {names[i]: xy for i, xy in at.items()} for frame, at in truth.items()}


def test_a_perfect_track_scores_one_under_any_names():
    score = score_tracking(named(TWO, a="2", b="1"), TWO, REGIONS)
    assert (score.precision, score.recall, score.f1) == pytest.approx((1, 1, 1))
    assert (score.hota.hota, score.hota.det_a, score.hota.ass_a) == pytest.approx((1, 1, 1))
    assert score.num_frames == 4


def test_swapped_ids_cost_association_only():
    """Half way swapped: each of four pairs shares 2 frames of 6, so AssA is 1/3."""
    predicted = {f: {"1": A, "2": B} if f < 2 else {"1": B, "2": A} for f in range(4)}
    score = score_tracking(predicted, TWO, REGIONS)
    assert score.f1 == pytest.approx(1)
    assert (score.hota.det_a, score.hota.ass_a) == pytest.approx((1, 1 / 3))
    assert score.hota.hota == pytest.approx(math.sqrt(1 / 3))


def test_missed_and_invented_points():
    half = {f: {"1": A} for f in range(4)}
    missed = score_tracking(half, TWO, REGIONS)
    assert (missed.precision, missed.recall, missed.hota.det_a) == pytest.approx((1, 0.5, 0.5))
    late = score_tracking(TWO | {9: {"1": A}}, TWO, REGIONS)
    assert late.precision == late.recall == pytest.approx(4 / 5)
    assert late.hota.det_pr == pytest.approx(8 / 9)
    assert late.hota.det_re == 1
    early = score_tracking({0: TWO[0]}, TWO, REGIONS)
    assert early.recall == pytest.approx(1 / 4)


def test_tracking_with_nothing_to_track():
    nothing = score_tracking({}, {}, {})
    assert (nothing.f1, nothing.hota.hota, nothing.num_frames) == (1, 1, 0)
    assert score_tracking({}, TWO, REGIONS).hota.hota == 0
    assert score_tracking(TWO, {}, {}).hota.hota == 0
    assert score_tracking(TWO, {}, {}).f1 == 0


def test_regions_are_paired_by_id_and_by_position_only_on_request():
    """The defect of the reference: an earlier object is absent, a perfect answer scores half."""
    truth = {0: {"a": A, "b": B}, 1: {"b": B}}
    predicted = {0: {"1": A, "2": B}, 1: {"2": B}}
    ours = score_tracking(predicted, truth, REGIONS)
    assert (ours.f1, ours.hota.hota) == pytest.approx((1, 1))
    reference = score_tracking(predicted, truth, REGIONS, ai2_compat=True)
    assert (reference.precision, reference.recall, reference.f1) == pytest.approx((0.5, 0.5, 0.5))
    assert reference.hota.hota == pytest.approx(0.577350269)
    later = {0: {"a": A, "b": B}, 1: {"a": A}}  # a later object is absent: only recall suffers
    reference = score_tracking(later, later, REGIONS, ai2_compat=True)
    assert (reference.precision, reference.recall) == pytest.approx((1, 0.75))


def test_a_point_without_a_region_is_an_error():
    with pytest.raises(ValueError, match="'b' has a point but no region in frame 3"):
        score_tracking(TWO, TWO, {"a": REGIONS["a"], "b": {0: RIGHT, 1: RIGHT, 2: RIGHT}})


def test_tracking_from_text():
    text = '<tracks coords="0.0 1 050 050 2 250 050;0.5 1 050 050 2 250 050">x</tracks>'
    predicted = by_frame(parse_tracks(text, size_wh=(100, 100), video_fps=2))
    assert predicted == {f: {"1": A, "2": B} for f in range(2)}


points_at = st.dictionaries(
    st.integers(0, 5),
    st.dictionaries(st.sampled_from("ab"), st.sampled_from([A, B, (15.0, 5.0)]), min_size=1),
)


@given(predicted=points_at, truth=points_at)
def test_tracking_scores_are_shares_and_ignore_the_names_of_ids(predicted, truth):
    regions = {i: {f: LEFT if truth[f].get(i) == A else RIGHT for f in truth} for i in "ab"}
    score = score_tracking(predicted, truth, regions)
    values = [score.precision, score.recall, score.f1, score.hota.hota, score.hota.det_a]
    values += [score.hota.ass_a, score.hota.det_pr, score.hota.det_re]
    assert all(0 <= value <= 1 + 1e-9 for value in values)
    assert score.hota.hota == pytest.approx(math.sqrt(score.hota.det_a * score.hota.ass_a))
    exact = score_tracking(
        truth, truth, {i: dict.fromkeys(truth, BoxRegion((0, 0, 99, 9))) for i in "ab"}
    )
    assert exact.f1 == pytest.approx(1)
    assert exact.hota.det_a == pytest.approx(1)


def test_tapvid():
    """One point, query at frame 0, then: exact, 3 px off, wrongly hidden, truly hidden."""
    true_xy = np.zeros((1, 5, 2)) + 128
    true_visible = np.array([[True, True, True, True, False]])
    predicted_xy = true_xy.copy()
    predicted_xy[0, 2, 0] += 3
    predicted_visible = np.array([[True, True, True, False, False]])
    arguments = (predicted_xy, predicted_visible, true_xy, true_visible, np.array([0]))
    score = score_tapvid(*arguments, size_wh=(256, 256))
    # thresholds 1 and 2: 1 hit, 3 visible, 1 wrong; from 4 on: 2 hits, 3 visible
    assert score.average_jaccard == pytest.approx((2 * 1 / 4 + 3 * 2 / 3) / 5)
    assert score.position_accuracy == pytest.approx((2 * 2 / 3 + 3 * 1) / 5)
    assert score.occlusion_accuracy == pytest.approx(3 / 4)
    shrunk = score_tapvid(*arguments, size_wh=(1024, 1024))  # 3 px are 0.75 px of 256
    assert shrunk.position_accuracy == 1
    with pytest.raises(ValueError, match="no visible point"):
        score_tapvid(*arguments[:4], np.array([4]), size_wh=(256, 256))


# ----------------------------------------------------------------------------------- temporal


def test_span_iou():
    assert span_iou((0, 10), (5, 15)) == pytest.approx(1 / 3)
    assert span_iou((0, 10), (0, 10)) == 1
    assert span_iou((0, 1), (1, 2)) == span_iou((3, 3), (3, 3)) == 0


def test_recall_at_iou():
    truth = [(0, 10), (20, 30)]
    assert recall_at_iou([(20, 30), (0, 9)], truth, iou=0.9) == 1
    assert recall_at_iou([(20, 30), (0, 9)], truth, iou=0.95) == 0.5
    assert recall_at_iou([(20, 30), (0, 9)], truth, iou=0.5, top_k=1) == 0.5
    assert (recall_at_iou([], [], iou=0.5), recall_at_iou([(0, 1)], [], iou=0.5)) == (1, 0)


def test_average_precision():
    truth = {"v": [(0, 10), (20, 30)], "w": [(0, 10)]}
    guesses = [
        ScoredSpan("v", (0, 10), 0.9),  # found
        ScoredSpan("v", (0, 9), 0.8),  # found before
        ScoredSpan("w", (20, 30), 0.7),  # a true span of another video
        ScoredSpan("v", (20, 30), 0.6),  # found
    ]
    assert average_precision(guesses, truth, iou=0.5) == pytest.approx((1 + 1 / 2) / 3)
    assert average_precision(guesses[::-1], truth, iou=0.5) == pytest.approx((1 + 1 / 2) / 3)
    assert average_precision([], truth, iou=0.5) == average_precision(guesses, {}, iou=0.5) == 0
    assert average_precision([], {}, iou=0.5) == 1
    near = [ScoredSpan("w", (0, 7.2), 1.0)]  # IoU 0.72 reaches 5 of the 10 thresholds
    assert mean_average_precision(near, {"w": [(0, 10)]}) == pytest.approx(0.5)


# ------------------------------------------------------------------------------------ answers


def test_exact_match():
    assert exact_match("  A  Cat ", ["dog", "a cat"]) == 1
    assert exact_match("cats", ["a cat"]) == 0


def test_anls():
    assert edit_distance("kitten", "sitting") == 3
    assert anls("Hello", ["hello"]) == anls("", [""]) == 1
    assert anls("helo", ["hello", "bye"]) == pytest.approx(0.8)
    assert anls("ab", ["ax"]) == 0  # exactly half is not enough
    assert anls("x", []) == 0


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("105", "100", 1),
        ("105.1", "100", 0),
        ("-95", "-100", 1),
        ("50%", "0.5", 1),
        ("Red", "red", 1),
        ("0.01", "0", 0),
        ("0", "0", 1),
        ("nan", "1", 0),
        ("about 5", "5", 0),
    ],
)
def test_relaxed_accuracy(prediction, answer, expected):
    assert relaxed_accuracy(prediction, [answer]) == expected
