"""Readers of image labels: hand-made samples, broken files, real exports, random damage.

Expected samples are written by hand from the format's description. Numbers of the real exports are
counted here from the raw file by other means than the reader's.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from scipy.ndimage import distance_transform_edt

from molmo_tune.errors import UserError
from molmo_tune.evaluation.truth import region_of
from molmo_tune.labels.jsonl import read_jsonl, write_jsonl
from molmo_tune.labels.masks import fill, pack, runs_of, unpack
from molmo_tune.labels.points import shape_point
from molmo_tune.labels.readers import detect_format, read_labels
from molmo_tune.labels.sample import (
    Box,
    Instance,
    Keypoint,
    Keypoints,
    Mask,
    Media,
    Point,
    Polygon,
    Sample,
    Shape,
)
from molmo_tune.labels.shapes import ellipse, fit, turned_box
from tests.fuzz_labels import check_once
from tests.label_inputs import SIZE, TINY, Tiny, coco

# ------------------------------------------------------------------------------------------- tools


def read(tiny: Tiny, name: str, folder: Path):
    path, media = tiny.write(folder)
    return read_labels(name, path, media, **tiny.options)


def counts_of(report) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """(read, kept, left out, dropped) by label and kind; every row must be accounted for."""
    for c in report.counts:
        assert c.read == c.kept + c.left_out + c.dropped, c
    return {(c.label, c.kind): (c.read, c.kept, c.left_out, c.dropped) for c in report.counts}


def totals(report) -> tuple[int, int, int, int]:
    """(read, kept, left out, dropped) of all annotations, without the images."""
    rows = [n for (_, kind), n in counts_of(report).items() if kind not in BOOKKEEPING]
    return tuple(sum(column) for column in zip(*rows, strict=True)) or (0, 0, 0, 0)


BOOKKEEPING = ("image", "annotation", "prediction", "task")


def reasons(findings) -> Counter[str]:
    total: Counter[str] = Counter()
    for finding in findings:
        total[finding.reason] += finding.count
    return total


def said(sample: Sample) -> list[tuple[str, Shape]]:
    return [(note.label, note.shape) for note in sample.annotations]


def mask_of(*rows_columns: tuple[slice, slice], size: tuple[int, int] = SIZE) -> Mask:
    pixels = np.zeros(size[::-1], np.bool_)
    for where in rows_columns:
        pixels[where] = True
    return pack(pixels)


def approx(shape: Shape) -> Any:
    """Numbers of a shape, for comparison."""
    if isinstance(shape, Point):
        return pytest.approx(shape.xy_px)
    if isinstance(shape, Box):
        return pytest.approx(shape.xyxy_px)
    assert isinstance(shape, Polygon)
    return [pytest.approx(np.array(part).ravel().tolist(), abs=1e-6) for part in shape.parts_px]


def numbers_of(shape: Shape) -> Any:
    if isinstance(shape, Point):
        return shape.xy_px
    if isinstance(shape, Box):
        return shape.xyxy_px
    assert isinstance(shape, Polygon)
    return [np.array(part).ravel().tolist() for part in shape.parts_px]


def assert_said(sample: Sample, expected: list[tuple[str, Shape]]) -> None:
    assert [label for label, _ in said(sample)] == [label for label, _ in expected]
    for (_, found), (_, wanted) in zip(said(sample), expected, strict=True):
        assert type(found) is type(wanted)
        if isinstance(wanted, Mask | Keypoints):
            assert found == wanted
        else:
            assert numbers_of(found) == approx(wanted)


# ------------------------------------------------------------------------------------------ shapes

pixels = st.builds(
    lambda h, w, seed, share: np.random.default_rng(seed).random((h, w)) < share,
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)


@given(pixels)
def test_masks_are_packed_as_pycocotools_packs_them(mask):
    reference = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    packed = pack(mask)
    assert packed.counts == reference["counts"].decode()
    assert (unpack(packed) == mask).all()


@given(st.text(max_size=20), st.integers(1, 9), st.integers(1, 9))
def test_text_that_is_no_mask_is_an_error_and_not_a_crash(counts, height, width):
    try:
        runs = runs_of(Mask(counts, (height, width)))
    except ValueError:
        return
    assert runs.sum() == height * width
    assert runs.min() >= 0


@given(pixels)
def test_the_interior_point_lies_in_the_core_nearest_the_centroid(mask):
    height, width = mask.shape
    xy = shape_point(pack(mask), (width, height))
    if not mask.any():
        assert xy is None
        return
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(mask)
    center = rows.mean(), columns.mean()
    core = [(r, c) for r, c in np.argwhere(depth >= 0.25 * depth.max())]
    column, row = int(xy[0]), int(xy[1])
    assert (row, column) in core
    best = min((r - center[0]) ** 2 + (c - center[1]) ** 2 for r, c in core)
    assert (row - center[0]) ** 2 + (column - center[1]) ** 2 == pytest.approx(best)
    assert region_of(pack(mask), (width, height)).contains(xy)


RING = Polygon((((0, 0), (20, 0), (20, 10), (18, 10), (18, 2), (2, 2), (2, 10), (0, 10)),))
FACE = Keypoints((Keypoint("nose", (4.0, 5.0)), Keypoint("ear", (6.0, 5.0), visible=False)))
POINTS = [
    # shape, rule: point (None: not to be seen)
    (Box((-4, 2, 4, 4)), "interior", (2, 3)),
    (Box((-4, 2, 0, 4)), "interior", None),
    (RING, "center", (9.5, 4.5)),
    (Polygon((((2, 2), (2.2, 2), (2.2, 2.1)),)), "interior", (2.1, 2.05)),
    (Polygon((((-9, -9), (-1, -9), (-1, -1)),)), "interior", None),
    (FACE, "interior", (4, 5)),
    (FACE, "keypoint:nose", (4, 5)),
    (FACE, "keypoint:ear", None),
    (FACE, "keypoint:tail", None),
    (Keypoints(FACE.points, Box((0, 0, 2, 2))), "interior", (1, 1)),
    (Box((0, 0, 2, 2)), "keypoint:nose", None),
    (Point((3, 4)), "random_in_mask", (3, 4)),
]


@pytest.mark.parametrize(("shape", "rule", "expected"), POINTS, ids=range(len(POINTS)))
def test_points_that_stand_for_shapes(shape, rule, expected):
    found = shape_point(shape, SIZE, rule, "key")
    assert found == (None if expected is None else pytest.approx(expected))


def test_random_points_lie_inside_and_depend_on_the_key():
    found = {shape_point(RING, SIZE, "random_in_mask", str(key)) for key in range(50)}
    assert len(found) > 20
    region = region_of(RING, SIZE)
    assert all(region.contains(xy) for xy in found)
    assert not region.contains((9.5, 5))
    assert shape_point(RING, SIZE, "random_in_mask", "1") in found


def test_large_masks_are_thinned_and_slivers_are_not_lost():
    mask = np.zeros((1500, 1500), np.bool_)
    mask[100:1300, 200:1400] = True
    column, row = shape_point(pack(mask), (1500, 1500))
    assert abs(column - 800) < 5
    assert abs(row - 700) < 5
    line = np.zeros((1500, 1500), np.bool_)
    line[1, 1:1499] = True
    assert shape_point(pack(line), (1500, 1500)) == pytest.approx((749, 1), abs=3)


def test_polygons_are_cut_at_the_frame():
    square = Polygon((((-5, -5), (5, -5), (5, 5), (-5, 5)),))
    inside, cut = fit(square, SIZE)
    assert cut
    assert sorted(inside.parts_px[0]) == [(0, 0), (0, 5), (5, 0), (5, 5)]
    assert fit(Polygon((((1, 1), (5, 1), (5, 5)),)), SIZE)[1] is False
    assert fit(Polygon((((1, 1), (5, 5), (9, 9)),)), SIZE) == (None, False)
    assert fit(turned_box((10, 2), (4, 2), 90, "corner"), SIZE)[0] is not None
    area = fill(ellipse((10, 5), (8, 4)), SIZE).sum()
    assert area == pytest.approx(np.pi * 32, rel=0.1)


corner = st.tuples(st.floats(-50, 50), st.floats(-50, 50))


@given(st.lists(corner, min_size=3, max_size=7))
def test_what_is_cut_lies_in_the_frame(corners):
    inside, _ = fit(Polygon((tuple(corners),)), SIZE)
    for part in inside.parts_px if inside is not None else ():
        assert all(-1e-6 <= x <= 20 + 1e-6 and -1e-6 <= y <= 10 + 1e-6 for x, y in part)
    xy = shape_point(Polygon((tuple(corners),)), SIZE)
    assert (xy is None) == (inside is None)


def test_shapes_survive_our_own_file(tmp_path):
    shapes = [
        Point((1.5, 2.0)),
        Box((0.0, 0.0, 1.0, 1.0)),
        RING,
        mask_of((slice(1, 3), slice(2, 4))),
        FACE,
        Keypoints(FACE.points, mask_of((slice(1, 3), slice(2, 4)))),
        Keypoints(FACE.points, Box((0.0, 0.0, 2.0, 2.0))),
    ]
    notes = tuple(Instance(str(n), "a", shape) for n, shape in enumerate(shapes))
    sample = Sample("s", Media("image", (Path("a.png"),), SIZE), notes)
    write_jsonl([sample], tmp_path / "x.jsonl")
    assert read_jsonl(tmp_path / "x.jsonl") == [sample]


BAD_SHAPES = [
    # keys of the instance: what the error says
    ({"polygon": [[[0, 0], [1, 1]]]}, "polygon is .*at least three"),
    ({"polygon": [[[0, 0], [1, 1], [2, "a"]]]}, "expected 2 numbers"),
    ({"polygon": 3}, "instance.polygon is 3; expected a list"),
    ({"mask": {"counts": "P13U5", "size_hw": [9, 20]}}, "size of the medium, 10 by 20"),
    ({"mask": {"counts": "P13", "size_hw": [10, 20]}}, "the runs cover 3. pixels of 200"),
    ({"mask": {"counts": "~~~", "size_hw": [10, 20]}}, "not the run lengths of a mask"),
    ({"mask": {"counts": 3, "size_hw": [10, 20]}}, "mask.counts is 3; expected text"),
    ({"mask": []}, "mask is \\[\\]; expected an object"),
    ({"keypoints": [{"xy": [1, 2]}]}, "keypoint has no name"),
    ({"keypoints": [], "point": [1, 2]}, "several shapes"),
    ({"box": [0, 0, 1, 1], "polygon": []}, "several shapes"),
]


@pytest.mark.parametrize(("keys", "message"), BAD_SHAPES, ids=range(len(BAD_SHAPES)))
def test_bad_shapes_in_our_own_file(tmp_path, keys, message):
    note = {"kind": "instance", "id": "0", "label": "a", **keys}
    media = {"kind": "image", "paths": ["a.png"], "size_wh": list(SIZE)}
    record = {"format": "molmo-tune/1", "id": "s", "media": media, "annotations": [note]}
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match=message) as caught:
        read_jsonl(tmp_path / "x.jsonl")
    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}:1: ")


# ---------------------------------------------------------------------- tiny inputs, one per format

TRIANGLE = Polygon((((1, 1), (5, 1), (5, 5)),))
DOG = (Keypoint("nose", (4.0, 5.0)),)

GOLDEN: dict[str, list[tuple[str, Shape]]] = {
    "coco": [
        ("cat", Box((2, 3, 6, 8))),
        ("cat", TRIANGLE),
        ("cat", mask_of((slice(1, 4), slice(1, 3)))),  # column by column: 11 zeros, 3 ones, …
        ("cat", mask_of((slice(2, 5), slice(3, 4)))),
        ("dog", Keypoints(DOG, Box((0, 0, 9, 9)))),
        ("dog", Keypoints((*DOG, Keypoint("tail", (6.0, 7.0), visible=False)))),
    ],
}


@pytest.mark.parametrize("name", TINY)
def test_tiny_inputs_become_the_samples_written_by_hand(tmp_path, name):
    (sample,), report = read(TINY[name], name, tmp_path)
    assert sample.media == Media("image", (tmp_path / next(iter(TINY[name].pictures)),), SIZE)
    assert_said(sample, GOLDEN[name])
    assert report.num_losses == 0
    assert sample.exhaustive_labels == ()


@pytest.mark.parametrize("name", TINY)
def test_tiny_inputs_are_recognised(tmp_path, name):
    if TINY[name].options:
        pytest.skip("read by a column map; nothing tells it apart")
    assert detect_format(TINY[name].write(tmp_path)[0]) == name


@pytest.mark.parametrize("name", TINY)
def test_missing_pictures_are_losses_and_the_error_says_so(tmp_path, name):
    path, media = TINY[name].write(tmp_path)
    for picture in TINY[name].pictures:
        (tmp_path / picture).unlink()
    with pytest.raises(UserError, match=r"no sample could be read.*image is missing|no such|no im"):
        read_labels(name, path, media, **TINY[name].options)


@pytest.mark.parametrize("name", TINY)
def test_pictures_that_do_not_open_are_losses(tmp_path, name):
    path, media = TINY[name].write(tmp_path)
    for picture in TINY[name].pictures:
        (tmp_path / picture).write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"no sample could be read.*missing or unreadable .not an"):
        read_labels(name, path, media, **TINY[name].options)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\xff", b"\x89PNG\r\n\x00", b"[[["])
def test_files_that_are_nothing_are_one_clear_error(tmp_path, name, content):
    tiny = TINY[name]
    path, media = tiny.write(tmp_path)
    for file in tiny.files:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_labels(name, path, media, **tiny.options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize("name", TINY)
def test_random_damage_ends_in_an_error_or_an_account(tmp_path, name):
    TINY[name].write(tmp_path)
    assert sum(check_once(name, TINY[name], tmp_path, seed) for seed in range(200)) < 200


# -------------------------------------------------------------------------------------------- COCO


def read_coco_rows(folder: Path, *rows, image=None, **more):
    tiny = Tiny({"x.json": json.dumps(coco(*rows, image=image, **more))}, "x.json")
    return read(tiny, "coco", folder)


GOOD = {"bbox": [1, 1, 2, 2]}
COCO_ROWS = [
    # row: outcome, reason
    ({"bbox": [1, 1, -2, 2]}, "dropped", "negative width or height"),
    ({"bbox": [1, 1, 2]}, "dropped", "missing or not a number"),
    ({"bbox": [1, 1, 2, float("nan")]}, "dropped", "missing or not a number"),
    ({"bbox": [1, 1, 2, 10**400]}, "dropped", "missing or not a number"),
    ({"bbox": "1 1 2 2"}, "dropped", "missing or not a number"),
    ({"bbox": [1, 1, 0, 2]}, "dropped", "without area"),
    ({"bbox": [30, 1, 2, 2]}, "dropped", "wholly outside"),
    ({"bbox": [18, 1, 9, 2]}, "clipped", ""),
    ({}, "dropped", "neither box, segmentation nor keypoints"),
    ({"segmentation": [[1, 1, 2, 2]]}, "dropped", "without three corners"),
    ({"segmentation": [[1, 1, 2, 2]], **GOOD}, "repaired", "the box was taken"),
    ({"segmentation": {"size": [20, 10], "counts": "P13U5"}}, "dropped", "run lengths"),
    ({"segmentation": {"size": [10, 20], "counts": "P13"}}, "dropped", "run lengths"),
    ({"segmentation": {"size": [10, 20], "counts": [1, -1, 200]}}, "dropped", "run lengths"),
    ({"segmentation": {"size": [10, 20], "counts": [200]}}, "dropped", "wholly outside"),
    ({"segmentation": 3, **GOOD}, "repaired", "the box was taken"),
    ({"category_id": 3, "keypoints": [1, 1, 2]}, "dropped", "do not fit"),
    ({"category_id": 3, "keypoints": [1, 1, 7, 1, 1, 1]}, "dropped", "do not fit"),
    ({"category_id": 3, "keypoints": [0, 0, 0, 0, 0, 0]}, "dropped", "neither box"),
    ({"category_id": 9, **GOOD}, "dropped", "not in the list of categories"),
    ({"category_id": [1], **GOOD}, "dropped", "not in the list of categories"),
    ({"image_id": 8, **GOOD}, "dropped", "not in the list of images"),
    ({"iscrowd": 1, **GOOD}, "left_out", "a group, not one object"),
]


@pytest.mark.parametrize(("row", "outcome", "reason"), COCO_ROWS, ids=range(len(COCO_ROWS)))
def test_coco_rows_that_need_a_decision(tmp_path, row, outcome, reason):
    (sample,), report = read_coco_rows(tmp_path, GOOD, row)
    assert sum(getattr(c, outcome) for c in report.counts) == 1
    found = {"dropped": report.losses, "repaired": report.repaired, "left_out": report.left_out}
    assert [reason in f.reason for f in found.get(outcome, ())] == [True] * bool(reason)
    assert len(sample.annotations) == 1 + (outcome in ("repaired", "clipped"))
    assert report.num_losses == (outcome == "dropped")


BAD_COCO = [
    # content: what the error says
    ("[1]", "no list of images"),
    ('{"annotations": []}', "no list of images"),
    ('{"images": 3}', "no list of images"),
    ('{"images": [1]}', "images is no list of objects"),
    ('{"images": [], "annotations": {}}', "annotations is no list of objects"),
    ('{"images": [], "categories": [{"id": 1}]}', "category 1 has no name"),
    ('{"images": [], "categories": [{"id": 1, "name": 2}]}', "category 1 has no name"),
    ('{"images": [{"id": 1}, {"id": 1}]}', "several images have the same id"),
    ('{"images": [{"id": 1}], "videos": [{}]}', "looks like COCO JSON with videos"),
    ('{"images": []}', "no sample could be read.*holds no annotations"),
    ('{"images": [{"id": 1}]}', "no sample could be read.*the labels name no image"),
    ('{"images": [{"id": 1, "file_name": "../a.png"}]}', "climbs out of the media folder"),
    ('{"images": [{"id": 1, "file_name": "a.png"}]}', "no sample could be read.*nothing annotated"),
    ('{"images": [{"id": 1,\n "file_name"', ":2: not valid JSON"),
]


@pytest.mark.parametrize(("content", "message"), BAD_COCO, ids=range(len(BAD_COCO)))
def test_broken_coco_is_one_clear_error(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(Tiny({"x.json": content}, "x.json"), "coco", tmp_path)


def test_coco_sizes_must_be_those_of_the_upright_picture(tmp_path):
    for size, reason in (((10, 20), "its sides are swapped"), ((40, 20), "another size than")):
        image = {"width": size[0], "height": size[1]}
        with pytest.raises(UserError, match=reason):
            read_coco_rows(tmp_path, GOOD, image=image)
    (sample,), _ = read_coco_rows(tmp_path, GOOD, image={"width": 0, "height": None})
    assert sample.media.size_wh == SIZE


def test_lvis_says_what_is_exhaustive_and_losses_take_it_back(tmp_path):
    image = {"neg_category_ids": [0], "not_exhaustive_category_ids": []}
    dog = {"category_id": 3, **GOOD}
    (sample,), _ = read_coco_rows(tmp_path, GOOD, dog, image=image)
    assert sample.exhaustive_labels == ("cat", "dog", "animals")
    image["not_exhaustive_category_ids"] = [3]
    (sample,), _ = read_coco_rows(tmp_path, GOOD, dog, image=image)
    assert sample.exhaustive_labels == ("cat", "animals")
    (sample,), _ = read_coco_rows(tmp_path, GOOD, {"bbox": [99, 9, 1, 1]}, dog, image=image)
    assert sample.exhaustive_labels == ("animals",)
    (sample,), _ = read_coco_rows(tmp_path, image=image)  # nothing there, but known not to be
    assert sample.annotations == ()


# (file, media, samples, (read, kept, left out, dropped)), the first and last counted from the raw
# JSON in the test; left out and dropped by hand: none of these files has crowds or faults
COCO_SAMPLES = [
    ("coco_json/datumaro_instances/annotations/instances_train.json", "images/train", 1),
    ("coco_json/datumaro_instances/annotations/instances_val.json", "images/val", 1),
    ("coco_keypoints/datumaro_person_keypoints/annotations/person_keypoints_train.json", "", 1),
    ("coco_keypoints/datumaro_person_keypoints/annotations/person_keypoints_val.json", "", 1),
    ("roboflow_coco/train/_annotations.coco.json", "", 7),
    ("roboflow_coco/valid/_annotations.coco.json", "", 2),
    ("roboflow_coco/test/_annotations.coco.json", "", 1),
]
