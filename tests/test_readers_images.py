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
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import distance_transform_edt

from molmo_tune.errors import UserError
from molmo_tune.evaluation.truth import region_of
from molmo_tune.labels.formats.jsonl import read_jsonl, write_jsonl
from molmo_tune.labels.formats.table.table import TableLayout
from molmo_tune.labels.geometry.masks import fill, pack, runs_of, unpack
from molmo_tune.labels.geometry.points import shape_point
from molmo_tune.labels.geometry.shapes import ellipse, fit, rotated_box
from molmo_tune.labels.read import read_labels
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
from tests.label_inputs import (
    CENTERED,
    SIZE,
    Tiny,
    coco,
    createml,
    cvat,
    drawn,
    labelme,
    pixmo,
    png_of_mask,
    region,
    studio,
    via,
    via_region,
    voc,
    voc_box,
)
from tests.labels.cases import BASIC

# ------------------------------------------------------------------------------------------- tools


def read(tiny: Tiny, name: str, folder: Path):
    path, media = tiny.write(folder)
    return read_labels(name, path, media, **tiny.options)


def counts_of(report) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """(read, kept, left out, dropped) by label and kind; every row must be accounted for."""
    for c in report.counts:
        assert c.read == c.kept + c.skipped + c.dropped, c
    return {(c.label, c.kind): (c.read, c.kept, c.skipped, c.dropped) for c in report.counts}


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
    assert fit(rotated_box((10, 2), (4, 2), 90, "corner"), SIZE)[0] is not None
    area = fill(ellipse((10, 5), (8, 4)), SIZE).sum()
    assert area == pytest.approx(np.pi * 32, rel=0.1)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("place", range(4))
def test_shapes_that_overflowed_have_no_part_in_the_frame_or_one_of_numbers(value, place):
    numbers = [1.0, 1.0, 5.0, 5.0]
    numbers[place] = value
    triangle = ((numbers[0], numbers[1]), (5.0, 1.0), (numbers[2], numbers[3]))
    assert fit(Polygon((triangle,)), SIZE) == (None, False)
    assert fit(Keypoints((), Polygon((triangle, *RING.parts_px))), SIZE) == (None, False)
    assert fit(Point((value, 1.0)), SIZE) == (None, False)
    box, _ = fit(Box(tuple(numbers)), SIZE)
    assert box is None or np.isfinite(box.xyxy_px).all()


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
    ({"mask": {"counts": "P13U5", "size_hw": [9, 20]}}, "the media size, .10, 20."),
    ({"mask": {"counts": "P13", "size_hw": [10, 20]}}, "run lengths cover 3. pixels, not 200"),
    ({"mask": {"counts": "~~~", "size_hw": [10, 20]}}, "not run lengths"),
    ({"mask": {"counts": 3, "size_hw": [10, 20]}}, "mask.counts is 3; expected text"),
    ({"mask": []}, "mask is \\[\\]; expected an object"),
    ({"keypoints": [{"xy": [1, 2]}]}, "keypoint has no name"),
    ({"keypoints": [], "point": [1, 2]}, "has point and keypoints"),
    ({"box": [0, 0, 1, 1], "polygon": []}, "has box and polygon"),
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

DOG = (Keypoint("nose", (4.0, 5.0)),)


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
    ({"bbox": [1, 1, 0, 2]}, "dropped", "zero area"),
    ({"bbox": [30, 1, 2, 2]}, "dropped", "entirely outside"),
    ({"bbox": [18, 1, 9, 2]}, "clipped", ""),
    ({}, "dropped", "no bbox, segmentation or keypoints"),
    ({"segmentation": [[1, 1, 2, 2]]}, "dropped", "fewer than three corners"),
    ({"segmentation": [[1, 1, 2, 2]], **GOOD}, "corrected", "replaced by the box"),
    ({"segmentation": {"size": [20, 10], "counts": "P13U5"}}, "dropped", "run lengths"),
    ({"segmentation": {"size": [10, 20], "counts": "P13"}}, "dropped", "run lengths"),
    ({"segmentation": {"size": [10, 20], "counts": [1, -1, 200]}}, "dropped", "run lengths"),
    ({"segmentation": {"size": [10, 20], "counts": [200]}}, "dropped", "entirely outside"),
    ({"segmentation": 3, **GOOD}, "corrected", "replaced by the box"),
    ({"category_id": 3, "keypoints": [1, 1, 2]}, "dropped", "do not match"),
    ({"category_id": 3, "keypoints": [1, 1, 7, 1, 1, 1]}, "dropped", "do not match"),
    ({"category_id": 3, "keypoints": [0, 0, 0, 0, 0, 0]}, "dropped", "no bbox"),
    ({"category_id": 9, **GOOD}, "dropped", "not in the list of categories"),
    ({"category_id": [1], **GOOD}, "dropped", "not in the list of categories"),
    ({"image_id": 8, **GOOD}, "dropped", "not in the list of images"),
    ({"iscrowd": 1, **GOOD}, "skipped", "group, not a single object"),
]


@pytest.mark.parametrize(("row", "outcome", "reason"), COCO_ROWS, ids=range(len(COCO_ROWS)))
def test_coco_rows_that_need_a_decision(tmp_path, row, outcome, reason):
    (sample,), report = read_coco_rows(tmp_path, GOOD, row)
    assert sum(getattr(c, outcome) for c in report.counts) == 1
    found = {"dropped": report.dropped, "corrected": report.corrected, "skipped": report.skipped}
    assert [reason in f.reason for f in found.get(outcome, ())] == [True] * bool(reason)
    assert len(sample.annotations) == 1 + (outcome in ("corrected", "clipped"))
    assert report.num_dropped == (outcome == "dropped")


BAD_COCO = [
    # content: what the error says
    ("[1]", "no list of images"),
    ('{"annotations": []}', "no list of images"),
    ('{"images": 3}', "no list of images"),
    ('{"images": [1]}', "images is not a list of objects"),
    ('{"images": [], "annotations": {}}', "annotations is not a list of objects"),
    ('{"images": [], "categories": [{"id": 1}]}', "category 1 has no name"),
    ('{"images": [], "categories": [{"id": 1, "name": 2}]}', "category 1 has no name"),
    ('{"images": [{"id": 1}, {"id": 1}]}', "images share an id"),
    ('{"images": [{"id": 1}], "videos": [{}]}', "looks like COCO JSON with videos"),
    ('{"images": []}', "no sample could be read.*holds no annotations"),
    ('{"images": [{"id": 1}]}', "no sample could be read.*the labels do not name the image"),
    ('{"images": [{"id": 1, "file_name": "../a.png"}]}', "points outside the media folder"),
    ('{"images": [{"id": 1, "file_name": "a.png"}]}', "no sample could be read.*nothing annotated"),
    ('{"images": [{"id": 1,\n "file_name"', ":2: not valid JSON"),
]


@pytest.mark.parametrize(("content", "message"), BAD_COCO, ids=range(len(BAD_COCO)))
def test_broken_coco_is_one_clear_error(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(Tiny({"x.json": content}, "x.json"), "coco", tmp_path)


def test_coco_sizes_must_be_those_of_the_upright_picture(tmp_path):
    for size, reason in (((10, 20), "width and height are swapped"), ((40, 20), "size differs")):
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


# -------------------------------------------------------------------------------------------- YOLO


def read_yolo_rows(folder: Path, rows: str, yaml: str = "names: [cat, dog]", **more: str):
    files = {"labels/a.txt": f"0 .5 .5 .1 .1\n{rows}", "data.yaml": yaml, **more}
    return read(Tiny(files, "labels", pictures={"images/a.png": SIZE}), "yolo", folder)


YOLO_ROWS = [
    # row: outcome, reason
    ("1 .5 .5 .1 -.1", "dropped", "negative width"),
    ("1 .5 .5 .1 nan", "dropped", "not a number"),
    ("1 .5 .5 .1 x", "dropped", "not a number"),
    ("1 .5 .5 .1", "dropped", "number of fields matches no"),
    ("1 .5 .5 .1 .1 .9", "dropped", "six fields"),
    ("1 .5 .5 .1 .1 .9 .8 .7", "dropped", "number of fields matches no"),
    ("2 .5 .5 .1 .1", "dropped", "without a name"),
    ("cat .5 .5 .1 .1", "dropped", "without a name"),
    ("1.0 .5 .5 .1 .1", "kept", ""),
    ("1 .95 .5 .2 .2", "clipped", ""),
    ("1 100 50 20 20", "dropped", "entirely outside"),
    ("1 .5 .5 0 0", "dropped", "zero area"),
    ("1 .5 1e308 .2 1e308", "dropped", ""),
    ("1 .1 .1 .2 1e308 .2 .2", "dropped", "area"),
    ("1 .1 .1 .2 .1 .2 .2 .1 .2 .1 .1", "kept", ""),  # without kpt_shape a polygon of five corners
]


@pytest.mark.parametrize(("row", "outcome", "reason"), YOLO_ROWS, ids=range(len(YOLO_ROWS)))
def test_yolo_rows_that_need_a_decision(tmp_path, row, outcome, reason):
    (sample,), report = read_yolo_rows(tmp_path, row)
    counts = [c for c in report.counts if c.label != "cat" and c.kind != "image"]
    assert sum(getattr(c, outcome) for c in counts) == 1
    assert [reason in f.reason for f in report.dropped] == [True] * (outcome == "dropped")
    assert len(sample.annotations) == 1 + (outcome != "dropped")


def test_yolo_poses_need_kpt_shape(tmp_path):
    row = "1 .5 .5 .2 .3 .5 .4 .6 .7"
    (_, (_, shape)) = said(read_yolo_rows(tmp_path / "b", row)[0][0])
    assert isinstance(shape, Polygon)
    yaml = "names: [cat, dog]\nkpt_shape: [2, 2]"
    (_, (_, shape)) = said(read_yolo_rows(tmp_path / "c", row, yaml)[0][0])
    assert [point.name for point in shape.points] == ["1", "2"]
    _, report = read_yolo_rows(tmp_path / "d", row, "names: [cat, dog]\nkpt_shape: [3, 2]")
    assert [f.count for f in report.dropped] == [1]


def test_yolo_without_a_label_file_is_not_the_same_as_empty(tmp_path):
    inputs = BASIC["yolo"].write(tmp_path)
    (tmp_path / "labels" / "b.txt").touch()
    for name in "bc":
        Image.new("RGB", SIZE).save(tmp_path / "images" / f"{name}.png")
    (sample,), report = inputs.read()
    assert sample.id == "a"
    assert counts_of(report)["", "image"] == (3, 1, 2, 0)
    found = {f.reason.split(":")[0]: f.places for f in report.skipped}
    assert found["nothing annotated"] == (str(tmp_path / "labels" / "b.txt"),)
    assert found["no label file"] == (str(tmp_path / "images" / "c.png"),)


BAD_YOLO = [
    # data.yaml: what the error says
    ("names: 3", "no list of names"),
    ("[1, 2]", "no list of names"),
    ("names: {a: cat}", "no list of names"),
    ("names: [cat", "not valid YAML"),
    ("names: [cat, dog]\nkpt_shape: 3", "kpt_shape is 3"),
    ("names: [cat, dog]\nkpt_shape: [3, 4]", r"kpt_shape is \[3, 4\]"),
    ("names: [cat, dog]\nkpt_shape: [99999999, 3]", "kpt_shape is"),
    ("", "the file is empty"),
]


@pytest.mark.parametrize(("yaml", "message"), BAD_YOLO, ids=range(len(BAD_YOLO)))
def test_yolo_class_lists_that_are_none(tmp_path, yaml, message):
    with pytest.raises(UserError, match=f"^{tmp_path}/data.yaml: {message}"):
        read_yolo_rows(tmp_path, "", yaml)


def test_yolo_class_names_from_other_lists(tmp_path):
    files = {"labels/a.txt": "1 .5 .5 .1 .1"}
    with pytest.raises(UserError, match="no class names"):
        read(Tiny(files, "labels", pictures={"images/a.png": SIZE}), "yolo", tmp_path)
    tiny = Tiny({**files, "labels/classes.txt": "cat\r\ndog\r\n"}, "labels", "pictures")
    tiny = Tiny(tiny.files, "labels", "pictures", {"pictures/a.png": SIZE})
    (sample,), _ = read(tiny, "yolo", tmp_path)
    assert sample.labels() == ("dog",)


# ---------------------------------------------------------------------------------- CVAT for images


def read_cvat_shapes(folder: Path, *shapes: str, meta: str = "<meta/>"):
    good = '<box label="cat" xtl="2" ytl="3" xbr="6" ybr="8"/>'
    return read(Tiny({"x.xml": cvat(good, *shapes, meta=meta)}, "x.xml"), "cvat_images", folder)


def mask(rle: str, left: object = 1, top: object = 2, width: object = 3, height: object = 2) -> str:
    box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'<mask label="dog" rle="{rle}" {box}/>'


CVAT_SHAPES = [
    # shape: outcome, reason
    ('<polyline label="dog" points="1,1;5,5"/>', "dropped", "without an interior"),
    ('<cuboid label="dog" xtl1="1"/>', "dropped", "without an interior"),
    ('<tag label="dog"/>', "dropped", "of the whole image"),
    ('<points label="dog" points="1,1;5,5"/>', "dropped", "several points in one shape"),
    ('<points label="dog" points="1"/>', "dropped", "not a number"),
    ('<points label="dog" points="30,1"/>', "dropped", "entirely outside"),
    ('<polygon label="dog" points="1,1;5,5"/>', "dropped", "fewer than three corners"),
    ('<polygon label="dog" points="1,1;5,5;9,9"/>', "dropped", "zero area"),
    ('<polygon label="dog" points="1,1;5,x;9,9"/>', "dropped", "not a number"),
    ('<polygon label="dog" points="1,1;25,1;25,5"/>', "clipped", ""),
    ('<box label="dog" xtl="9" ytl="9" xbr="1" ybr="1"/>', "corrected", "corners reordered"),
    ('<box label="dog" xtl="nan" ytl="9" xbr="1" ybr="1"/>', "dropped", "not a number"),
    ('<box label="dog" xtl="1" ytl="9" xbr="1"/>', "dropped", "not a number"),
    ('<box label="" xtl="1" ytl="1" xbr="9" ybr="9"/>', "dropped", "no class label"),
    (mask("0, 3"), "dropped", "do not cover 3x2"),
    (mask("0, 6", width=30, height=2), "dropped", "do not cover"),
    (mask("0, 6", left=19), "dropped", "extends beyond the image"),
    (mask("0, 6", top=-1), "dropped", "extends beyond the image"),
    (mask("0, x"), "dropped", "not a number"),
    (mask("6"), "dropped", "entirely outside"),
    ('<ellipse label="dog" cx="5" cy="5" rx="2"/>', "dropped", "not a number"),
    (
        '<skeleton label="dog"><points label="a" outside="1"/></skeleton>',
        "skipped",
        "object absent",
    ),
    ('<skeleton label="dog"><points label="a" points="1"/></skeleton>', "dropped", "not a number"),
    ('<hologram label="dog"/>', "dropped", "unknown shape"),
]


@pytest.mark.parametrize(("shape", "outcome", "reason"), CVAT_SHAPES, ids=range(len(CVAT_SHAPES)))
def test_cvat_shapes_that_need_a_decision(tmp_path, shape, outcome, reason):
    (sample,), report = read_cvat_shapes(tmp_path, shape)
    counts = [c for c in report.counts if c.label != "cat" and c.kind != "image"]
    assert sum(getattr(c, outcome) for c in counts) == 1
    found = {"dropped": report.dropped, "corrected": report.corrected, "skipped": report.skipped}
    assert [reason in f.reason for f in found.get(outcome, ())] == [True] * bool(reason)
    assert len(sample.annotations) == 1 + (outcome in ("clipped", "corrected"))
    places = {place for f in report.dropped for place in f.places}
    assert places == ({f"{tmp_path / 'x.xml'}:5"} if outcome == "dropped" else set())


METAS = [
    "",
    "<meta><task><id>1</id></task></meta>",
    "<meta><job><id>1</id><original_size><width>9</width></original_size></job></meta>",
    "<meta><project><tasks><task><id>1</id></task></tasks></project></meta>",
]


@pytest.mark.parametrize("meta", METAS, ids=range(len(METAS)))
def test_cvat_images_do_not_depend_on_meta(tmp_path, meta):
    (sample,), _ = read_cvat_shapes(tmp_path, meta=meta)
    assert_said(sample, [("cat", Box((2, 3, 6, 8)))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<images/>", "the root is <images>"),
        ("<annotations/>", "holds no annotations"),
        (cvat()[:-20], ":4: not valid XML"),
        (cvat().replace("a.png", "../a.png"), "points outside the media folder"),
        (cvat().replace("a.png", ""), "the labels do not name the image"),
        (cvat().replace('width="20"', 'width="10"'), "size differs.*labels 10x10, image 20x10"),
        ("<!DOCTYPE x><annotations/>", "declares a document type"),
    ],
)
def test_broken_cvat_is_one_clear_error(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(Tiny({"x.xml": text}, "x.xml"), "cvat_images", tmp_path)


# ------------------------------------------------------------------------- Label Studio for images


def read_studio(folder: Path, *regions: dict[str, Any], **task: Any):
    good = region("keypointlabels", "good", x=50, y=50)
    tiny = Tiny({"x.json": studio(good, *regions, **task)}, "x.json")
    return read(tiny, "label_studio_image", folder)


RECTANGLE = {"x": 10, "y": 30, "width": 20, "height": 50}
STUDIO_REGIONS = [
    # region: outcome, reason
    (region("rectanglelabels", **{**RECTANGLE, "height": -20}), "corrected", "made positive"),
    (region("rectanglelabels", **{**RECTANGLE, "x": "10"}), "dropped", "not a number"),
    (region("rectanglelabels", **{**RECTANGLE, "x": None}), "dropped", "not a number"),
    (region("rectanglelabels", **{**RECTANGLE, "x": 120}), "dropped", "entirely outside"),
    (region("rectanglelabels", **{**RECTANGLE, "x": 95}), "clipped", ""),
    (region("rectanglelabels", image_rotation=90, **RECTANGLE), "dropped", "rotated view"),
    (region("rectanglelabels", "", **RECTANGLE), "dropped", "no class label"),
    (region("polygonlabels", points=[[1, 1], [2, 2]]), "dropped", "fewer than three corners"),
    (region("polygonlabels", points=[[1, 1], [2, 2], 3]), "dropped", "not a number"),
    (region("polygonlabels"), "dropped", "fewer than three corners"),
    (region("ellipselabels", x=1, y=1, radiusX=2), "dropped", "not a number"),
    (region("brushlabels", rle=[0, 0, 3, 32]), "dropped", "end early"),
    (
        region("brushlabels", rle=[0, 0, 0, 1, 57, 27, 255]),
        "dropped",
        "do not match the image size",
    ),
    (region("brushlabels", rle="0"), "dropped", "not a number"),
    (region("brushlabels", rle=[300]), "dropped", "not a number"),
    (region("choices", choices=["day"]), "dropped", "without coordinates"),
    ({"type": "relation", "from_id": "a", "to_id": "b"}, "skipped", "relation"),
]


@pytest.mark.parametrize(
    ("part", "outcome", "reason"), STUDIO_REGIONS, ids=range(len(STUDIO_REGIONS))
)
def test_studio_regions_that_need_a_decision(tmp_path, part, outcome, reason):
    (sample,), report = read_studio(tmp_path, part)
    counts = [c for c in report.counts if c.label != "good" and c.kind not in BOOKKEEPING]
    assert sum(getattr(c, outcome) for c in counts) == 1
    found = {"dropped": report.dropped, "corrected": report.corrected, "skipped": report.skipped}
    assert [reason in f.reason for f in found.get(outcome, ())] == [True] * bool(reason)
    assert len(sample.annotations) == 1 + (outcome in ("clipped", "corrected"))


def test_studio_key_points_follow_their_rectangle(tmp_path):
    lost = region("rectanglelabels", id="r", **{**RECTANGLE, "x": "120"})
    parts = [region("keypointlabels", "nose", x=20, y=50, parentID="r"), lost]
    _, report = read_studio(tmp_path, *parts)
    assert reasons(report.dropped)["its parent rectangle was dropped"] == 1
    alone = region("keypointlabels", "nose", x=20, y=50, parentID="nobody")
    (sample,), _ = read_studio(tmp_path, alone)
    assert said(sample)[1] == ("nose", Point((4.0, 5.0)))
    bad = [region("keypointlabels", "nose", x=x, y=50, parentID="r") for x in (20, 130, "a")]
    (sample,), report = read_studio(tmp_path, *bad, region("rectanglelabels", id="r", **RECTANGLE))
    assert said(sample)[1][1] == Keypoints(DOG, Box((2.0, 3.0, 6.0, 8.0)))
    assert counts_of(report)["nose", "keypoint"] == (3, 1, 0, 2)


def test_studio_layouts_of_images_say_the_same(tmp_path):
    part = region("rectanglelabels", **RECTANGLE)
    value = {**part["value"], "original_width": 20, "original_height": 10}
    apart = [
        {"id": "q", "type": "rectangle", "value": RECTANGLE},
        {"id": "q", "type": "labels", "value": {"labels": ["cat"]}},
    ]
    address = "https://x.example/b/1a2b3c4d-a.png?token=1"
    layouts: list[Any] = [
        [{"data": {"image": "a.png"}, "annotations": [{"result": [part]}]}],
        [{"data": {"image": address}, "annotations": [{"result": apart}]}],
        [{"data": {"image": "/a"}, "completions": [{"result": [part]}]}],
        [{"data": {"image": "a.png"}, "predictions": [{"result": [part]}]}],
        [{"result": [part]}],
        [{"image": "/data/upload/1/a.png", "id": 1, "box": [value]}],
    ]
    for layout in layouts:
        tiny = Tiny({"x.json": json.dumps(layout)}, "x.json")
        (sample,), report = read(tiny, "label_studio_image", tmp_path)
        assert_said(sample, [("cat", Box((2, 3, 6, 8)))])
        assert report.num_dropped == 0


def test_studio_images_of_several_annotators(tmp_path):
    part = region("rectanglelabels", **RECTANGLE)
    done = [{"was_cancelled": True, "result": [part]}, {"result": [part]}, {"result": []}]
    tiny = Tiny({"x.json": studio(annotations=done, predictions=[{"result": []}])}, "x.json")
    (sample,), report = read(tiny, "label_studio_image", tmp_path)
    assert len(sample.annotations) == 1
    assert reasons(report.skipped) == {
        "cancelled by the annotator": 1,
        "another annotation of the same task": 1,
        "model prediction, not an annotation": 1,
    }


def test_studio_sizes_must_be_those_of_the_picture(tmp_path):
    text = studio(region("rectanglelabels", **RECTANGLE)).replace(": 20,", ": 40,", 1)
    with pytest.raises(UserError, match=r"image size differs from the labels .labels 40x10"):
        read(Tiny({"x.json": text}, "x.json"), "label_studio_image", tmp_path)


# ------------------------------------------------------- LabelMe, VOC, VIA, CreateML, DOTA, tables

BOX_VOC = voc_box(2, 3, 6, 8)
GOOD_MASK = png_of_mask()
ROWS: list[tuple[str, str, str, str, str]] = [
    # format, file, content (a good object and one more): outcome, reason
    *(
        ("labelme", "a.json", labelme(drawn("point", (1, 1), label="good"), row), outcome, reason)
        for row, outcome, reason in (
            (drawn("line", (1, 1), (5, 5)), "dropped", "without an interior"),
            (drawn("linestrip", (1, 1), (5, 5), (9, 1)), "dropped", "without an interior"),
            (drawn("points", (1, 1), (5, 5)), "dropped", "several points"),
            (drawn("points", (1, 1)), "kept", ""),
            (drawn("cube", (1, 1)), "dropped", "unknown shape"),
            (drawn("polygon", (1, 1), (5, 5)), "dropped", "fewer than three corners"),
            (drawn("rectangle", (1, 1)), "dropped", "not a number"),
            (drawn("rectangle", (1, 1), (5, 1), (5, 5), (1, 5)), "kept", ""),
            (drawn("circle", (1, 1), (1, 1)), "dropped", "zero area"),
            (drawn("point", (1, float("nan"))), "dropped", "not a number"),
            (drawn("point", (30, 1)), "dropped", "entirely outside"),
            (drawn("point", (1, 1), label=""), "dropped", "no class label"),
            (drawn("mask", (1, 1), (3, 2)), "dropped", "not a PNG that fits"),
            (drawn("mask", (19, 1), (21, 2), mask=GOOD_MASK), "dropped", "not a PNG that fits"),
            (drawn("mask", (1, 1), (3, 2), mask=GOOD_MASK[:20]), "dropped", "not a PNG that fits"),
        )
    ),
    *(
        ("pascal_voc", "a.xml", voc(voc_box(1, 1, 2, 2, "good"), row), outcome, reason)
        for row, outcome, reason in (
            (voc_box(6, 3, 2, 8), "dropped", "swapped corners"),
            (voc_box("x", 3, 6, 8), "dropped", "not a number"),
            (voc_box("", 3, 6, 8), "dropped", "not a number"),
            (voc_box(2, 3, 2, 8), "dropped", "zero area"),
            (voc_box(12, 3, 26, 8), "clipped", ""),
            (voc_box(2, 3, 6, 8, ""), "dropped", "no class label"),
            ("<object><name>cat</name></object>", "dropped", "not a number"),
        )
    ),
    *(
        ("via", "x.json", via(via_region("point", "good", cx=1, cy=1), row), outcome, reason)
        for row, outcome, reason in (
            (via_region("polyline", all_points_x=[1], all_points_y=[1]), "dropped", "an interior"),
            (via_region("polygon", all_points_x=[1], all_points_y=[1]), "dropped", "three corners"),
            (via_region("rect", x=1, y=1, width=-4, height=2), "dropped", "negative width"),
            (via_region("rect", x=1, y=1, width="4", height=2), "dropped", "not a number"),
            (via_region("hologram"), "dropped", "unknown shape"),
            (via_region("point", {"a": True, "b": True}, cx=1, cy=1), "dropped", "no class label"),
            ({"shape_attributes": [], "region_attributes": 3}, "dropped", "no class label"),
            (via_region("ellipse", cx=5, cy=5, rx=2, ry=1, theta=1e308), "dropped", "area"),
        )
    ),
    *(
        ("createml", "x.json", createml(("good", CENTERED), row), outcome, reason)
        for row, outcome, reason in (
            (("cat", {**CENTERED, "width": -1}), "dropped", "negative width"),
            (("cat", {**CENTERED, "x": None}), "dropped", "not a number"),
            (("cat", {}), "dropped", "not a number"),
            (("", CENTERED), "dropped", "no class label"),
        )
    ),
    *(
        ("dota", "a.txt", f"1 1 5 1 5 5 1 5 good 0\n{row}\n", outcome, reason)
        for row, outcome, reason in (
            ("1 1 5 1 5 5 1 x cat 0", "dropped", "not a number"),
            ("1 1 5 1 5 5 cat", "dropped", "fewer than eight"),
            ("1 1 5 1 5 5 1 inf cat", "dropped", "not a number"),
            ("31 1 35 1 35 5 31 5 cat", "dropped", "entirely outside"),
        )
    ),
    *(
        ("pixmo_points", "x.jsonl", pixmo([{"x": 9, "y": 9}], label="good") + row, outcome, reason)
        for row, outcome, reason in (
            (pixmo([{"x": 101, "y": 50}]), "corrected", "moved to its edge"),
            (pixmo([{"x": "1", "y": 50}]), "dropped", "not a number"),
            (pixmo({"x": [1], "y": [2]}), "dropped", "not a number"),
            (pixmo([], 4), "dropped", "a count without points"),
        )
    ),
]


@pytest.mark.parametrize(
    ("name", "file", "content", "outcome", "reason"), ROWS, ids=range(len(ROWS))
)
def test_rows_that_need_a_decision(tmp_path, name, file, content, outcome, reason):
    (sample,), report = read(Tiny({file: content}, file), name, tmp_path)
    counts = [c for c in report.counts if c.label != "good" and c.kind != "image"]
    assert sum(getattr(c, outcome) for c in counts) == 1
    found = {"dropped": report.dropped, "corrected": report.corrected}
    assert [reason in f.reason for f in found.get(outcome, ())] == [True] * bool(reason)
    assert len(sample.annotations) == 1 + (outcome != "dropped")


BROKEN = [
    # format, file, content, what the error says
    ("labelme", "a.json", "{}", "no list of shapes"),
    ("labelme", "a.json", '{"shapes": [1]}', "no list of shapes"),
    ("labelme", "a.json", labelme()[:-9], "not valid JSON"),
    (
        "labelme",
        "a.json",
        labelme(imageWidth=10),
        "image size differs from the labels .labels 10x10",
    ),
    ("labelme", "a.json", labelme(imagePath=None), "the labels do not name the image"),
    ("pascal_voc", "a.xml", "<annotations/>", "the root is <annotations>"),
    ("pascal_voc", "a.xml", voc(BOX_VOC)[:-20], "not valid XML"),
    ("pascal_voc", "a.xml", voc(BOX_VOC).replace("A.png", "../a.png"), "points outside the media"),
    ("pascal_voc", "a.xml", voc(BOX_VOC, size=""), ""),
    ("via", "x.json", "{}", "images without regions"),
    ("via", "x.json", '{"a": {"regions": 3}}', "regions is not a list"),
    ("via", "x.csv", "a,b\n1,2", "other columns"),
    ("via", "x.json", via().replace("a.png", "../a.png"), "points outside"),
    ("createml", "x.json", "{}", "not a list of objects"),
    ("createml", "x.json", '[{"image": "../a.png"}]', "points outside"),
    ("roboflow_hosted", "a.json", "{}", "no predictions"),
    ("roboflow_hosted", "a.json", '{"predictions": 3}', "not a list of objects"),
    ("open_images", "x.csv", "a,b\n1,2", "no column 'ImageID'"),
    ("table", "x.csv", "a,b\n1,2", "no column 'file'"),
    ("table", "x.csv", b"file,class,x1,y1,x2,y2\n\xe4", "not CSV in UTF-8"),
    ("table", "x.jsonl", "[1]", ":1: not a JSON object"),
    ("table", "x.jsonl", '{"file": 1}', ":1: no column 'class'"),
    ("table", "x.parquet", "PAR1", "not a readable Parquet file|need pyarrow"),
    ("pixmo_points", "x.jsonl", pixmo([{"x": 310, "y": 50}]), ":1: a coordinate of 310"),
    ("pixmo_points", "x.jsonl", '{"label": "a"}', ":1: no column 'image_url'"),
    ("pixmo_count", "x.jsonl", pixmo(None, 4), "a count without points"),
]


@pytest.mark.parametrize(("name", "file", "content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_broken_files_are_one_clear_error(tmp_path, name, file, content, message):
    options = BASIC["table"].write(tmp_path / "golden").options if name == "table" else {}
    tiny = Tiny({file: content}, file, options=options)
    if not message:
        assert len(read(tiny, name, tmp_path)[0]) == 1
        return
    with pytest.raises(UserError, match=message) as caught:
        read(tiny, name, tmp_path)
    assert "\n" not in str(caught.value)


def test_voc_instances_are_the_objects_in_order(tmp_path):
    picture = Image.new("P", SIZE)
    picture.putpalette(list(range(256)) * 3)
    picture.paste(1, (2, 3, 6, 8))
    picture.paste(255, (6, 3, 7, 8))
    (tmp_path / "SegmentationObject").mkdir()
    picture.save(tmp_path / "SegmentationObject" / "a.png")
    files = {"Annotations/a.xml": voc(BOX_VOC, voc_box(1, 1, 5, 5, "dog"))}
    tiny = Tiny(files, "Annotations", "JPEGImages", {"JPEGImages/a.png": SIZE})
    (sample,), _ = read(tiny, "pascal_voc", tmp_path)
    expected = [("cat", mask_of((slice(3, 8), slice(2, 6)))), ("dog", Box((1, 1, 5, 5)))]
    assert_said(sample, expected)
    Image.new("RGB", SIZE).save(tmp_path / "SegmentationObject" / "a.png")
    with pytest.raises(UserError, match="an image of mode RGB"):
        read(tiny, "pascal_voc", tmp_path)


def test_open_images_labels_verified_as_absent_are_exhaustive(tmp_path):
    inputs = BASIC["open_images"].write(tmp_path)
    classes = tmp_path / "class-descriptions.csv"
    seen = "ImageID,Source,LabelName,Confidence\na,verification,/m/3,0\na,verification,/m/1,1\n"
    (tmp_path / "train-imagelabels.csv").write_text(seen.replace("/m/3", "/m/4"))
    classes.write_text(classes.read_text() + "/m/4,bird\n")
    (sample,), report = inputs.read()
    assert sample.exhaustive_labels == ("bird",)
    assert reasons(report.skipped) == {
        "group, not a single object": 1,
        "the photo was taken inside of it": 1,
    }
    classes.write_text("/m/1,cat\n")
    _, report = inputs.read()
    assert reasons(report.dropped) == {"a class id without a name in class-descriptions": 1}


UNITS = [
    # units, box, cells: the box in pixels of 20 by 10
    ("pixel", "xyxy", (2, 3, 6, 8), (2, 3, 6, 8)),
    ("percent", "xywh", (10, 30, 20, 50), (2, 3, 6, 8)),
    ("unit", "cxcywh", (0.2, 0.55, 0.2, 0.5), (2, 3, 6, 8)),
    ("pixel", "xywh", (2, 3, -6, 8), None),
    ("pixel", "xyxy", (6, 3, 2, 8), None),
    ("pixel", "xyxy", (6, "x", 2, 8), None),
]


@pytest.mark.parametrize(("units", "style", "cells", "expected"), UNITS, ids=range(len(UNITS)))
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_in_all_units_and_files(tmp_path, units, style, cells, expected, suffix):
    columns = ("i", "l", "a", "b", "c", "d")
    rows = [("a.png", "good", 1, 1, 2, 2), ("a", "cat", *cells)]
    if style == "xyxy" and expected is None and suffix == "parquet" and "x" in cells:
        pytest.skip("a column of Parquet has one type")
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    path = tmp_path / f"x.{suffix}"
    if suffix == "csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in (columns, *rows)))
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, table)))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(table), path)
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    layout = TableLayout("i", "l", columns[2:], units, style)
    samples, report = read_labels("table", path, layout=layout)
    found = [shape.xyxy_px for s in samples for label, shape in said(s) if label == "cat"]
    assert found == ([pytest.approx(expected)] if expected else [])
    assert report.num_dropped == (expected is None)


def test_tables_need_their_columns_and_others_have_their_own(tmp_path):
    inputs = BASIC["table"].write(tmp_path)
    path = inputs.path
    with pytest.raises(UserError, match="a table without columns"):
        read_labels("table", path)
    with pytest.raises(UserError, match="format coco defines its own columns"):
        read_labels("coco", path, **inputs.options)


# ------------------------------------------------------------------------------------ real exports


def test_real_brush_strokes_have_the_area_of_the_sdk(shared, tmp_path):
    Image.new("RGB", (768, 576)).save(tmp_path / "a.png")
    path = shared / "samples" / "label_studio_image" / "mlbackend_brush.json"
    (sample,), _ = read_labels("label_studio_image", path, tmp_path)
    areas = [int(unpack(note.shape).sum()) for note in sample.annotations]
    assert areas == [12104, 5716, 11709]  # label_studio_sdk.converter.brush on the same file


def test_real_table(shared, tmp_path):
    path = shared / "samples" / "plain_csv" / "mosquitos.csv"
    names = [line.split(",") for line in path.read_text().split()[1:]]
    for file, width, height, *_ in names:
        Image.new("1", (int(width), int(height))).save(tmp_path / file)
    columns = ("bbx_xtl", "bbx_ytl", "bbx_xbr", "bbx_ybr")
    layout = TableLayout("img_fName", "class_label", columns, "pixel")
    found, report = read_labels("table", path, tmp_path, layout)
    assert [(s.labels()[0], s.annotations[0].shape.xyxy_px) for s in found] == [
        (row[3], tuple(map(float, row[4:]))) for row in names
    ]
    assert report.num_dropped == 0
