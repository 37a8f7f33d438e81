"""Readers of video, track and event labels: rules of single formats, and real files.

Golden inputs are in `tests/labels`. Numbers expected of real files are counted from the raw file
with the standard library; each test says how.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from molmo_tune.errors import UserError
from molmo_tune.labels.formats.jsonl import write_jsonl
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.report import ConversionReport
from molmo_tune.labels.sample import (
    Box,
    Keypoint,
    Keypoints,
    Mask,
    Media,
    Observation,
    Point,
    Sample,
    Span,
    Track,
)
from molmo_tune.labels.survey import detect_format
from tests.labels.cases import BASIC, ROOT
from tests.labels.media import draw_media

SIZE = (100, 50)
NUM_FRAMES = 20


def make_video(
    path: Path, num_frames: int = NUM_FRAMES, size_wh: tuple[int, int] = SIZE, fps: int = 10
) -> Path:
    """A black video."""
    return draw_media(path, size_wh, num_frames, fps)


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4")


@pytest.fixture
def folder(tmp_path, clip) -> Path:
    """A folder with one video, clip.mp4."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    return tmp_path


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def golden(format: str, folder: Path) -> Path:
    """The golden input of a format and its video; the label file."""
    return BASIC[format].write(folder).path


def counts_of(report: ConversionReport) -> dict[tuple[str, str], dict[str, int]]:
    """Non-zero counts by label and kind; every row read must be accounted for."""
    for c in report.counts:
        assert c.read == c.kept + c.skipped + c.dropped, c
    names = ("read", "kept", "interpolated", "clipped", "corrected", "skipped", "dropped")
    return {
        (c.label, c.kind): {n: getattr(c, n) for n in names if getattr(c, n)} for c in report.counts
    }


def reasons(findings) -> dict[str, int]:
    total: dict[str, int] = {}
    for finding in findings:
        total[finding.reason] = total.get(finding.reason, 0) + finding.count
    return total


def seen(frame: int, shape: object, **flags: bool) -> Observation:
    """An observation in the video of ten frames per second."""
    return Observation(frame / 10, frame, shape, **flags)


def boxed(frame: int, *xyxy: float, **flags: bool) -> Observation:
    return seen(frame, Box(tuple(map(float, xyxy))), **flags)


# ------------------------------------------------------------------ CVAT for video and our own file


def rest(type: str, frame: int, points: list[float], **more: object) -> dict[str, object]:
    """A shape as CVAT's server answers it."""
    flags = {"occluded": False, "outside": False, "rotation": 0.0, "attributes": [], "elements": []}
    return {"type": type, "frame": frame, "points": points, "z_order": 0, **flags, **more}


REST_META = {
    "frames": [{"name": "clip.mp4", "width": 100, "height": 50}],
    "size": 6,
    "start_frame": 4,
    "frame_filter": "step=2",
    "deleted_frames": [5],
}


def test_answers_beside_cvat_s_annotations_are_needed_and_told_apart(folder):
    path = golden("cvat_rest", folder)
    for name, message in (
        ("labels", r"names of the labels is missing; save GET /api/labels"),
        ("meta", r"names of the media is missing; save GET /api/tasks"),
    ):
        answer = (folder / f"{name}.json").read_bytes()
        (folder / f"{name}.json").unlink()
        with pytest.raises(UserError, match=message):
            read_labels("cvat_rest", path)
        write(folder / f"{name}.json", answer)
    write(folder / "job.json", {"id": 1, "start_frame": 0, "stop_frame": 4})
    (sample,), _ = read_labels("cvat_rest", path)
    assert sample.annotations[0].observations[-1].frame_index == 12
    for name, value, message in (
        ("meta", {"frames": []}, "no list of frames with names"),
        ("meta", REST_META | {"frame_filter": "every third"}, "expected step=N"),
        ("meta", REST_META | {"start_frame": -1}, "start_frame is -1; expected an integer"),
        ("meta", REST_META | {"frames": [{"name": "a.png"}]}, "1 names for 6 frames"),
        ("labels", {"results": 3}, "no list of labels"),
        ("labels", [{"id": "3", "name": "car"}], "a label without an id"),
        ("labels", [{"id": 3}], "label 3 has no name"),
        ("job", [], "not a JSON object"),
    ):
        good = (folder / f"{name}.json").read_bytes()
        write(folder / f"{name}.json", value)
        with pytest.raises(UserError, match=message):
            read_labels("cvat_rest", path)
        write(folder / f"{name}.json", good)
    (folder / "two").mkdir()
    for name in ("annotations", "labels", "meta"):
        shutil.copy(folder / f"{name}.json", folder / "two" / f"7_{name}.json")
        shutil.copy(folder / f"{name}.json", folder / "two" / f"8_{name}.json")
    assert len(read_labels("cvat_rest", folder / "two", folder)[0]) == 2


POLYGONS = [
    # corners in frames 0 and 10: those in frame 4, of nearest or of corners on their way
    ([1, 1, 11, 1, 11, 11], [11, 1, 21, 1, 21, 11], [(5, 1), (15, 1), (15, 11)]),
    ([1, 1, 11, 1, 11, 11], [1, 1, 11, 1, 11, 11, 1, 11], [(1, 1), (11, 1), (11, 11)]),
]


@pytest.mark.parametrize(("first", "last", "expected"), POLYGONS, ids=["as many", "others"])
def test_polygons_between_key_frames_of_cvat_s_server_are_there(folder, first, last, expected):
    """A gap of a second: no frame of it may read as "not there"."""
    shapes = [rest("polygon", 0, first), rest("polygon", 10, last), rest("polygon", 15, last)]
    shapes[-1]["outside"] = True
    track = {"id": 1, "label": "car", "shapes": shapes}
    write(folder / "meta.json", {"frames": [{"name": "clip.mp4"}], "size": 20})
    path = write(folder / "annotations.json", {"shapes": [], "tags": [], "tracks": [track]})
    (sample,), report = read_labels("cvat_rest", path)
    found = sample.annotations[0].observations
    assert [o.frame_index for o in found] == list(range(15))  # it is gone from frame 15 on
    corners = [(round(x, 6), round(y, 6)) for x, y in found[4].shape.parts_px[0]]
    assert corners == expected
    assert found[10].shape == found[14].shape
    assert counts_of(report)["car", "polygon"] == {
        "read": 3,
        "kept": 2,
        "interpolated": 13,
        "skipped": 1,
    }


def test_cvat_s_server_about_pictures(tmp_path):
    """Pictures are frames of the task; what lies on others, and tracks through them, is lost."""
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    shapes = [
        rest("rectangle", 1, [2, 3, 6, 8], label="cat"),
        rest("rectangle", 0, [2, 3, 6, 5], label="cat", rotation=90.0),
        rest("points", 0, [4, 5], label="dog"),
        rest("skeleton", 0, [], label="dog", elements=[rest("points", 0, [4, 5], label="nose")]),
        rest("rectangle", 2, [2, 3, 6, 8], label="cat"),
        rest("rectangle", 3, [2, 3, 6, 8], label="cat"),
    ]
    tracks = [{"label": "cat", "shapes": [rest("rectangle", 0, [2, 3, 6, 8])]}]
    tags = [{"frame": 0, "label": "night"}]
    names = [{"name": name, "width": 20, "height": 10} for name in ("a.png", "b.png", "c.png")]
    write(tmp_path / "meta.json", {"frames": names, "size": 3, "deleted_frames": [2]})
    data = {"version": 0, "shapes": shapes, "tags": tags, "tracks": tracks}
    path = write(tmp_path / "annotations.json", data)
    assert detect_format(path) == "cvat_rest"
    samples, report = read_labels("cvat_rest", path)
    found = [[(note.label, note.shape) for note in sample.annotations] for sample in samples]
    turned, *others = found[0]
    assert (samples[0].id, samples[1].id) == ("a", "b")
    corners = sorted((round(x, 6), round(y, 6)) for x, y in turned[1].parts_px[0])
    assert corners == [(3, 2), (3, 6), (5, 2), (5, 6)]
    assert others == [
        ("dog", Point((4.0, 5.0))),
        ("dog", Keypoints((Keypoint("nose", (4.0, 5.0)),))),
    ]
    assert found[1] == [("cat", Box((2.0, 3.0, 6.0, 8.0)))]
    assert reasons(report.dropped) == {
        "frame not in the task": 1,
        "tag of the whole image": 1,
        "track through images; export the task as CVAT for images 1.1": 1,
    }
    assert reasons(report.skipped) == {"frame deleted from the task": 1}


# --------------------------------------------------------------------------------- MOT and KITTI


def test_mot_names_sizes_and_lengths_of_seqinfo(folder):
    path = write(folder / "x" / "gt" / "gt.txt", "1,1,1,1,5,5,1,1,1\n")
    ini = "[Sequence]\nname=clip\nimDir=img1\nframeRate=30\nseqLength={}\nimWidth={}\nimHeight=50\n"
    write(folder / "x" / "seqinfo.ini", ini.format(20, 100))
    (sample,), _ = read_labels("mot", path, folder)
    assert sample.annotations == (Track("1", "pedestrian", (boxed(0, 0, 0, 5, 5),)),)
    for text, message in (
        (ini.format(19, 100), "number of frames differs from the labels .labels 19, video 20"),
        (ini.format(20, 50), "video size differs from the labels .labels 50x50, video 100x50"),
        ("[Other]\n", r"seqinfo.ini: not valid .*a \[Sequence\] section"),
        ("name=1", "seqinfo.ini: not valid"),
    ):
        write(folder / "x" / "seqinfo.ini", text)
        with pytest.raises(UserError, match=message):
            read_labels("mot", path, folder)


def test_mot15_has_no_classes_and_labels_txt_names_them(folder):
    path = write(folder / "clip.txt", "1,7,1,1,5,5,1,-1,-1,-1\n2,7,1,1,5,5,1,3.2,0.01,0\n")
    (sample,), _ = read_labels("mot", path)
    (track,) = sample.annotations
    assert (track.label, [o.occluded for o in track.observations]) == ("pedestrian", [False, False])
    path = write(folder / "clip" / "gt" / "gt.txt", "1,7,1,1,5,5,1,8,1\n1,8,1,1,5,5,1,9,1\n")
    write(path.with_name("labels.txt"), "".join(f"label_{n}\n" for n in range(8)))
    (sample,), report = read_labels("mot", path, folder)
    assert [t.label for t in sample.annotations] == ["label_7"]
    assert reasons(report.dropped) == {"a class without a name": 1}


def frames(folder, count, size=(40, 30), name="{:06d}.jpg"):
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.new("RGB", size, (number * 20, 0, 0)).save(folder / name.format(number))
    return folder


def test_a_folder_of_pictures_is_read_as_a_video(tmp_path):
    """MOT as it is downloaded: SEQ/img1 and seqinfo.ini, two sequences."""
    for name in ("one", "two"):
        frames(tmp_path / name / "img1", 6)
        text = f"[Sequence]\nname={name}\nframeRate=4\nseqLength=6\nimWidth=40\nimHeight=30\n"
        write(tmp_path / name / "seqinfo.ini", text)
        write(tmp_path / name / "gt" / "gt.txt", "1,1,1,1,5,5,1,1,1\n6,1,11,1,5,5,1,1,1\n")
    samples, report = read_labels("mot", tmp_path, tmp_path)
    assert [sample.id for sample in samples] == ["one", "two"]
    assert [sample.media.paths for sample in samples] == [
        (tmp_path / name / "img1",) for name in ("one", "two")
    ]
    assert not report.dropped
    assert samples[0].media.duration_s == 1.5
    assert [o.time_s for o in samples[0].annotations[0].observations] == [0.0, 1.25]
    (tmp_path / "one" / "img1" / "000006.jpg").unlink()  # noticed, though it was read just now
    (sample,), report = read_labels("mot", tmp_path, tmp_path)
    assert sample.id == "two"
    assert "number of frames differs" in str(report.dropped[0])


def test_other_readers_take_folders_that_state_their_rate(tmp_path):
    row = "{} 1 Car 0 0 -10 5 5 20 20 1 1 1 0 0 9 0 1\n"
    labels = write(tmp_path / "label_02" / "0000.txt", row.format(0) + row.format(2))
    folder = frames(tmp_path / "image_02" / "0000", 3)
    media = tmp_path / "image_02"
    with pytest.raises(UserError, match=r"does not state its rate.*write the frames per second"):
        read_labels("kitti_tracking", labels, media)
    write(media / "fps.txt", "10\n")  # one for all sequences
    (sample,), _ = read_labels("kitti_tracking", labels, media)
    assert sample.id == "0000"
    assert [o.time_s for o in sample.annotations[0].observations] == [0.0, 0.2]
    write(media / "fps.txt", "5\n")
    (sample,), _ = read_labels("kitti_tracking", labels, media)
    assert [o.time_s for o in sample.annotations[0].observations] == [0.0, 0.4]
    for number in (5, 6):
        Image.new("RGB", (40, 30)).save(folder / f"{number:06d}.jpg")
    with pytest.raises(UserError, match=r"missing between 000003\.jpg and 000005\.jpg"):
        read_labels("kitti_tracking", labels, media)
    with pytest.raises(UserError, match="no video '0000'"):
        read_labels("kitti_tracking", labels, frames(tmp_path / "elsewhere" / "0001", 1).parent)


def test_folders_of_pictures_in_our_own_format(tmp_path):
    folder = frames(tmp_path / "clips" / "a", 4)
    write(folder / "fps.txt", "2")
    video = Media("video", (folder,), (40, 30), 2.0)
    seen = (Observation(0.5, 1, Point((3.0, 4.0))),)
    write_jsonl([Sample("a", video, (Track("1", "dot", seen),))], tmp_path / "labels.jsonl")
    for media in (None, tmp_path / "clips"):
        (sample,), _ = read_labels("jsonl", tmp_path / "labels.jsonl", media)
        assert sample.media.paths == (folder,)


@pytest.mark.parametrize("name", ["mot_seq", "mot_seq_with_seqinfo"])
def test_mot_samples_of_datumaro_are_detections(shared, name, tmp_path):
    """One row each, by eye: ``1,-1,0,4,4,8,1,3,1.0``; -1: no identity; labels.txt has class 3."""
    path = shared / "samples" / "motchallenge" / "datumaro" / name / "gt" / "gt.txt"
    assert path.read_text().split() == ["1,-1,0,4,4,8,1,3,1.0"]
    video = make_video(tmp_path / "Test.mp4", 1, (16, 16))
    with pytest.raises(UserError, match="1 × label_2 box: id -1: a detection without identity"):
        read_labels("mot", path, video)


# ------------------------------------------------------------------------------ masks of all sorts


def rle(left: int, top: int, right: int, bottom: int) -> dict[str, object]:
    """Run lengths of a filled rectangle, by pycocotools; the right and bottom pixels are out."""
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8, order="F")
    pixels[top:bottom, left:right] = 1
    packed = coco_mask.encode(pixels)
    return {"size": packed["size"], "counts": packed["counts"].decode()}


def masked(frame: int, *corners: int, **flags: bool) -> Observation:
    return seen(frame, Mask(rle(*corners)["counts"], (SIZE[1], SIZE[0])), **flags)


def png(*rectangles: tuple[int, int, int, int, int], mode: str = "P") -> bytes:
    """Return a PNG of object numbers: rectangles of (number, left, top, right, bottom)."""
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint16 if mode == "I;16" else np.uint8)
    for number, left, top, right, bottom in rectangles:
        pixels[top:bottom, left:right] = number
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(bytes(3 * [7] * 256))  # one color for all: colors do not matter
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


A, B = (10, 10, 20, 30), (40, 10, 60, 30)
EMPTY = rle(0, 0, 0, 0)


def test_folders_of_masks_are_one_sample_each(folder):
    """All images of a folder are read, or a single image."""
    BASIC["mask_folder"].write(folder / "masks", draw=False)
    (sample,), report = read_labels("mask_folder", folder / "masks", folder)
    assert sample.annotations == (
        Track("1", "object", (masked(3, *A),)),
        Track(
            "2",
            "object",
            (masked(3, *B), masked(4, *A)),
        ),
    )
    assert reasons(report.skipped) == {"value 255: void": 1}
    assert detect_format(folder / "masks" / "clip" / "00003.png") == "mask_folder"
    write(folder / "masks" / "clip" / "00005.png", png((1, *A)))
    shutil.copy(make_video(folder / "three.mp4", 3), folder / "clip.mp4")
    (sample,), report = read_labels("mask_folder", folder / "masks", folder)
    assert [[o.frame_index for o in t.observations] for t in sample.annotations] == [[0, 2], [0, 1]]
    assert any("n-th label is on the n-th frame" in f.reason for f in report.notes)
    colors = Image.new("RGB", SIZE)
    colors.save(folder / "masks" / "clip" / "00004.png")
    _, report = read_labels("mask_folder", folder / "masks", folder)
    assert reasons(report.dropped) == {"mask is not an image of object IDs (mode RGB)": 1}


def test_mots_images_and_text_give_the_same_masks(folder):
    write(folder / "masks" / "clip" / "000003.png", png((1001, *A), (10000, *B), mode="I;16"))
    write(folder / "masks" / "clip" / "000004.png", png((1001, *B), mode="I;16"))
    for format, first in (("kitti_mots", 0), ("mots_challenge", 1)):
        (sample,), report = read_labels(format, folder / "masks", folder)
        expected = Track("1001", "car", (masked(3 - first, *A), masked(4 - first, *B)))
        assert sample.annotations == (expected,)
        assert reasons(report.skipped) == {"id 10000: a region to ignore": 1}
    with pytest.raises(UserError, match="could be kitti_mots or mots_challenge"):
        detect_format(folder / "masks" / "clip" / "000003.png")


def test_mevis_masks_lie_in_a_file_of_their_own(folder):
    words = {"exp": "the dogs that leave", "obj_id": [0, 1], "anno_id": [70, 71]}
    videos = {"clip": {"frames": ["00000", "00001"], "expressions": {"0": words}}}
    path = write(folder / "meta_expressions.json", {"videos": videos})
    write(folder / "mask_dict.json", {"70": [rle(*A), None], "71": [rle(*B), EMPTY]})
    (sample,), report = read_labels("expressions", path)
    assert sample.annotations == tuple(
        Track(id, "the dogs that leave", (masked(0, *corners),))
        for id, corners in (("70", A), ("71", B))
    )
    assert counts_of(report)["the dogs that leave", "mask"] == {"read": 4, "kept": 2, "skipped": 2}


def test_bdd_labels_do_not_fit_the_original_recording(folder):
    frames = [{"videoName": "clip", "frameIndex": n, "labels": None, "name": "x"} for n in range(5)]
    path = write(folder / "x.json", frames)
    with pytest.raises(
        UserError, match=r"number of frames differs from the labels .labels 5, video 20"
    ):
        read_labels("scalabel", path)


def test_scalabel_curves_pass_through_their_ends(folder):
    part = {"vertices": [[10, 10], [20, 0], [30, 0], [40, 10], [25, 40]], "types": "LCCLL"}
    row = {"id": 1, "category": "car", "poly2d": [part]}
    path = write(folder / "x.json", [{"videoName": "clip", "frameIndex": 19, "labels": [row]}])
    (sample,), _ = read_labels("scalabel", path)
    (corners,) = sample.annotations[0].observations[0].shape.parts_px
    assert len(corners) == 3 + 7
    assert corners[0] == (10, 10)
    assert corners[4] == pytest.approx((25, 2.5))  # the middle of a cubic: (p + 3q + 3r + s) / 8
    assert corners[-2:] == ((40, 10), (25, 40))


def test_sav_sample(shared, tmp_path):
    """Present: the decoded area (pycocotools) is not 0. Frames 4 i; three lie between two, and two
    after frame 480 of 483."""
    path = shared / "samples" / "sav" / "sav_000001_manual.json"
    masklet = json.loads(path.read_text())["masklet"]
    present = np.array([[coco_mask.area(mask) > 0 for mask in frame] for frame in masklet])
    assert present.shape == (121, 5)
    assert present.size - present.sum() == 125
    between = 3 * int((present[1:] & present[:-1]).sum()) + 2 * int(present[-1].sum())
    video = make_video(tmp_path / "sav_000001.mp4", 483, (480, 848), fps=24)
    (sample,), report = read_labels("sav", path, video)
    assert len(sample.annotations) == 5
    assert counts_of(report)["object", "mask"] == {
        "read": 605,
        "kept": 480,
        "skipped": 125,
        "interpolated": between,
    }
    drawn = [o for t in sample.annotations for o in t.observations if not o.interpolated]
    assert {o.frame_index % 4 for o in drawn} == {0}
    assert report.num_dropped == 0


def test_davis_sample(shared, tmp_path):
    """Objects and images: distinct values above 0 of each PNG, read with Pillow, no palette."""
    folder = shared / "samples" / "davis_masks" / "osvos_results" / "bike-packing"
    files = sorted(folder.glob("*.png"))
    values = [set(np.array(Image.open(file)).ravel().tolist()) - {0} for file in files]
    assert (len(files), sum(map(len, values))) == (30, 60)
    make_video(tmp_path / "bike-packing.mp4", 40, (910, 480))
    (sample,), report = read_labels("mask_folder", folder, tmp_path)
    assert [len(t.observations) for t in sample.annotations] == [30, 30]
    assert counts_of(report)["object", "mask"] == {"read": 60, "kept": 60}
    assert sample.annotations[0].observations[7].frame_index == 7


def test_mots_sample_of_datumaro(shared, tmp_path):
    """By np.unique: 1.png 3002 4001 4003, 2.png 4002, 3.png 1001; labels.txt a b c d."""
    folder = shared / "samples" / "mots_png" / "train"
    numbers = [
        set(np.array(Image.open(f)).ravel()) - {0} for f in sorted(folder.rglob("[0-9].png"))
    ]
    assert [len(found) for found in numbers] == [3, 1]
    with pytest.raises(UserError, match="missing or unreadable"):
        read_labels("mots_challenge", folder / "instances", tmp_path)


def test_youtube_vis_sample_has_the_layout_of_tao(shared, tmp_path):
    """One video, one image, and as many annotations as the raw JSON lists."""
    path = shared / "samples" / "youtube_vis_json" / "ann.json"
    rows = json.loads(path.read_text())["annotations"]
    make_video(tmp_path / "0043f083b5.mp4", 1, (1280, 720))
    assert detect_format(path) == "tao"
    (sample,), report = read_labels("tao", path, tmp_path)
    assert len(sample.annotations) == len(rows)
    assert sum(c.kept for c in report.counts if c.kind == "mask") == len(rows)
    assert report.num_dropped == 0


def test_tao_sample(shared, tmp_path):
    """4 rows of tracks 1 (category 805) and 3 (95) in frames 390 and 420. The file was cut down:
    category 95 and the five negative ones have no name; 805 is in not_exhaustive."""
    path = shared / "samples" / "tao_lvis_json" / "ann.json"
    raw = json.loads(path.read_text())
    assert {c["id"] for c in raw["categories"]} == {805, 950}
    assert [a["category_id"] for a in raw["annotations"]] == [805, 95, 805, 95]
    make_video(tmp_path / "v_f69ebe5b731d3e87c1a3992ee39c3b7e.mp4", 450, (640, 480), fps=30)
    (sample,), report = read_labels("tao", path, tmp_path)
    assert sample.exhaustive_labels == ()
    (track,) = sample.annotations
    assert track.id == "1"
    assert [o.frame_index for o in track.observations if not o.interpolated] == [390, 420]
    assert len(track.observations) == 2 + 29 + 7  # between, and a quarter of a second after
    assert reasons(report.dropped) == {"category not in the list of categories": 2}


def test_bdd_sample(shared, tmp_path):
    """One frame, index 0, of four labels: ids a, b, a, c. The second ``a`` of the frame is a second
    row for it."""
    path = shared / "samples" / "bdd100k" / "example_annotation.json"
    (frame,) = json.loads(path.read_text())
    ids = [label["id"] for label in frame["labels"]]
    assert ids == ["a", "b", "a", "c"]
    make_video(tmp_path / "b1c81faa-3df17267.mp4", 1, (1280, 720))
    (sample,), report = read_labels("scalabel", path, tmp_path)
    assert [t.id for t in sample.annotations] == ["a", "b", "c"]
    assert sum(c.kept for c in report.counts if c.kind == "polygon") == 3
    assert reasons(report.dropped) == {"duplicate row for a frame": 1}


# ----------------------------------------------------------------------- one object, and events


def test_got10k_flags_classes_and_their_number(folder):
    path = write(folder / "clip" / "groundtruth.txt", "1.5,2,10,10\n" * 20)
    write(path.with_name("absence.label"), "1\n" * 5 + "0\n" * 15)
    write(path.with_name("cover.label"), "0\n" * 7 + "8\n" * 13)
    write(path.with_name("meta_info.ini"), "[METAINFO]\nobject_class: polar bear\n")
    (sample,), report = read_labels("sot", folder / "clip", folder)
    (track,) = sample.annotations
    assert track.label == "polar bear"
    assert [o.frame_index for o in track.observations if o.occluded] == [5, 6]
    assert counts_of(report)["polar bear", "box"] == {"read": 20, "kept": 15, "skipped": 5}
    write(path.with_name("cover.label"), "0\n" * 7)
    with pytest.raises(UserError, match=r"7 flags for 20 lines of groundtruth.txt"):
        read_labels("sot", path, folder)
    write(path.with_name("cover.label"), "0 x")
    with pytest.raises(UserError, match=r"cover.label: something other than single digits"):
        read_labels("sot", path, folder)


@pytest.mark.parametrize("name", ["airplane-1", "airplane-2"])
def test_lasot_samples(shared, tmp_path, name):
    """25 lines of ``x,y,w,h`` each, all inside 640 x 480; no flag files."""
    path = shared / "samples" / "lasot" / name / "groundtruth.txt"
    rows = [tuple(map(float, line.split(","))) for line in path.read_text().split()]
    assert len(rows) == 25
    make_video(tmp_path / f"{name}.mp4", 25, (640, 480))
    assert detect_format(path) == "sot"
    (sample,), report = read_labels("sot", path, tmp_path)
    (track,) = sample.annotations
    assert (track.label, track.id) == ("airplane", "1")
    found = [o.shape.xyxy_px for o in track.observations]
    assert found == [(x, y, x + w, y + h) for x, y, w, h in rows]
    assert counts_of(report)["airplane", "box"] == {"read": 25, "kept": 25}


def test_lasot_sample_in_the_layout_of_mmtracking(shared, tmp_path):
    """50 rows on 50 pictures of two videos, one object each; the only category is called 0."""
    path = shared / "samples" / "lasot" / "lasot_test_dummy.json"
    raw = json.loads(path.read_text())
    assert [len(raw[name]) for name in ("videos", "images", "annotations")] == [2, 50, 50]
    for name in ("airplane-1", "airplane-2"):
        make_video(tmp_path / f"{name}.mp4", 25, (640, 360))
    samples, report = read_labels("tao", path, tmp_path)
    assert [[len(t.observations) for t in s.annotations] for s in samples] == [[25], [25]]
    assert counts_of(report)["0", "box"] == {"read": 50, "kept": 50}


def test_trackingnet_and_vot_samples(shared, tmp_path):
    """video-1.txt: two lines 1,1,100,100. The VOT file: 25 lines of 8 numbers."""
    folder = shared / "samples" / "trackingnet_vot" / "TRAIN_0" / "video-1"
    make_video(tmp_path / "video-1.mp4", 2, (640, 480))
    (sample,), _ = read_labels("sot", folder / "video-1.txt", tmp_path)
    assert [o.shape for o in sample.annotations[0].observations] == [
        Box((1.0, 1.0, 101.0, 101.0))
    ] * 2
    vot = folder / "vot2018_gt_for_eval.txt"
    assert {line.count(",") for line in vot.read_text().split()} == {7}
    video = make_video(tmp_path / "vot.mp4", 25, (640, 480))
    (sample,), report = read_labels("sot", vot, video)
    assert counts_of(report)["object", "polygon"] == {"read": 25, "kept": 25}
    assert sample.annotations[0].observations[0].shape.parts_px[0][2] == (408.0, 117.0)


def test_timeline_sample_of_the_ml_backend(shared):
    """A webhook message: ranges 1-10 (Car) and 5-15 (croquet_ball) on the video beside it; times by
    PyAV, frame 11 and 16 end them (index 10 and 15)."""
    path = shared / "samples" / "label_studio_timeline" / "test_timeline_labels_1.json"
    media = shared / "samples" / "label_studio_video" / "mlbackend"
    with av.open(str(media / "opossum_snow_short.mp4")) as container:
        times = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    times = [time - times[0] for time in times]
    (sample,), report = read_labels("label_studio_video", path, media)
    assert [(s.label, s.start_s, s.end_s) for s in sample.annotations] == [
        ("Car", 0.0, pytest.approx(times[10], abs=1e-4)),
        ("croquet_ball", pytest.approx(times[4], abs=1e-4), pytest.approx(times[15], abs=1e-4)),
    ]
    assert report.num_dropped == 0


def test_activitynet_samples(shared, tmp_path):
    """gt.json: 2 videos of 224.49 and 76.23 s with 3 and 1 segments; result.json is detections;
    the third file has 2 videos of 1 and 2 s with a segment each."""
    folder = shared / "samples" / "activitynet_json"
    path = folder / "mmaction2" / "gt.json"
    durations = {name: entry["duration"] for name, entry in json.loads(path.read_text()).items()}
    for name, seconds in durations.items():
        make_video(tmp_path / f"{name}.mp4", round(seconds), (32, 32), fps=1)
    samples, report = read_labels("activitynet", path, tmp_path)
    assert [len(s.annotations) for s in samples] == [3, 1]
    assert samples[0].annotations[0] == Span("Wakeboarding", 11.553655226209049, 57.06805460218409)
    # 76.161 s lies past the end of a video of 76 frames, one per second
    assert [c.clipped for c in report.counts if c.kind == "span"] == [0, 1]
    assert report.num_dropped == 0
    with pytest.raises(UserError, match="model detections"):
        read_labels("activitynet", folder / "mmaction2" / "result.json", tmp_path)
    for number in (1, 2):
        make_video(tmp_path / f"v_test{number}.mp4", 10 * number)
    samples, _ = read_labels("activitynet", folder / "mmaction2_action_test_anno.json", tmp_path)
    assert [s.annotations for s in samples] == [
        (Span("Rock climbing", 0.3, 0.6),),
        (Span("Drinking beer", 1.0, 2.0),),
    ]


def test_ava_samples(shared, tmp_path):
    """Distinct (video, action) pairs of persons 0: 3 actions of the first video at 902, two of them
    at 903 as well; 3 of the second. eval/pred.csv has scores in place of persons."""
    folder = shared / "samples" / "ava_csv"
    for name in ("0f39OWEqJ24", "_-Z6wFjXtGQ"):
        make_video(tmp_path / f"{name}.mp4", 1000, (32, 16), fps=1)
    path = folder / "ava_sample.csv"
    assert detect_format(path) == "ava"
    samples, report = read_labels("ava", path, tmp_path)
    shown = [
        [(t.label, [o.frame_index for o in t.observations]) for t in s.annotations] for s in samples
    ]
    assert (
        shown
        == [
            [("action1", [902, 903]), ("action2", [902, 903]), ("action3", [902])],
            [("action1", [902]), ("action 74", [902]), ("action3", [902])],
        ]
        or shown[1][1][0] == "action 74"
    )
    assert sum(c.kept for c in report.counts if c.kind == "box") == 8
    assert report.num_dropped == 0
    with pytest.raises(UserError, match=r"the person is not a whole number \(a detection"):
        read_labels("ava", folder / "eval" / "pred.csv", tmp_path)


def test_cvat_sample_of_the_manual_has_tags_but_no_frames(shared, tmp_path):
    """Its pictures are called filename000.jpg: not frames of a video, and not taken for some."""
    path = shared / "samples" / "cvat_docs_xml" / "images_mask_skeleton_tag.xml"
    make_video(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match="looks like format cvat_images; expected CVAT for images"):
        read_labels("cvat_tags", path, tmp_path)


# --------------------------------------------------------- models' outputs, poses, points on disk

SINK = """\
x_min,y_min,x_max,y_max,class_id,confidence,tracker_id,class_name,frame_index
10,10,20,30,0,0.9,4,dog,0
11,10,21,30,0,0.9,4.0,dog,1
11,10,21,30,0,0.9,,dog,1
11,10,21,30,0,0.9,5,dog,
21,10,11,30,0,0.9,5,dog,1
"""

VIDEO_POINT = [
    {"video_id": "clip", "video_duration": 2.4, "clip_start": None, "clip_end": None}
    | {"annotator_unsure": False, "two_fps_timestamps": [], "points": []}
    | row
    for row in (
        {
            "label": "cats",
            "count": 3,
            "two_fps_timestamps": [0.5, 1.5],
            "points": [[{"x": 50, "y": 20}, {"x": 10.5, "y": 100}], [{"x": 7, "y": 9}]],
        },
        {"label": "dogs", "count": 0},
        {"label": "cows", "count": 0, "annotator_unsure": True},
        {"label": "hens", "count": 0, "clip_start": 0.0, "clip_end": 1.0},
        {
            "label": "pigs",
            "count": 2,
            "two_fps_timestamps": [0.0, 9.5],
            "points": [[{"x": 700, "y": 9}], [{"x": 7, "y": 9}]],
        },
        {"label": "emus", "count": 1, "two_fps_timestamps": [0.0], "points": None},
        {"label": "rats", "count": 1},
    )
]

VIDEO_TRACK = [
    {
        "id": "1",
        "video": "long",
        "clip": "clip",
        "start_frame": 40,
        "end_frame": 60,
        "fps": 10,
        "w": 100,
        "h": 50,
        "exp": "the left dog",
        "mask_id": [3],
        "points": [
            {"object_id": 3, "points": [[10.5, 20]] + [[]] * 18 + [[12, 20]]},
            {"object_id": 4, "points": [["a", 20]] + [[]] * 19},
        ],
    }
]

INSTRUCTION = [
    {
        "id": "1",
        "video": "clip",
        "expression": "the left dog",
        "fps": 10,
        "sampling_fps": 5,
        "height": 50,
        "width": 100,
        "n_frames": 20,
        "frame_trajectories": [
            {"frame": 0, "time": 0.0, "points": [{"id": 0, "point": [10, 20], "occluded": False}]},
            {"frame": 2, "time": 9.9, "points": [{"id": 0, "point": [14, 22], "occluded": True}]},
            {"frame": 4, "time": 0.4, "points": []},
            {"frame": "x", "time": 0.4, "points": [{"id": 0, "point": [1, 2]}]},
            {"frame": 6, "time": 0.6, "points": [{"id": 0, "point": [1]}, {"point": [1, 2]}]},
        ],
    }
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "saved"])
@pytest.mark.parametrize(
    "format", ["molmo2_video_point", "molmo2_video_track", "track_instruction"]
)
def test_tables_of_all_kinds_say_the_same(folder, format, kind):
    """What the JSON of the golden case says, less the rows that an Arrow column cannot hold."""
    if format == "molmo2_video_point":
        rows = VIDEO_POINT
    elif format == "molmo2_video_track":
        rows = [VIDEO_TRACK[0] | {"points": VIDEO_TRACK[0]["points"][:1]}]
    else:
        moments = INSTRUCTION[0]["frame_trajectories"][:3]
        rows = [INSTRUCTION[0] | {"frame_trajectories": moments}]
    path = folder / "rows" / f"rows.{kind}"
    write_table(rows, path, kind)
    (sample,), _ = read_labels(format, path, folder)
    (wanted,), _ = BASIC[format].write(folder / "golden").read()
    assert sample.annotations == wanted.annotations
    assert sample.exhaustive_labels == wanted.exhaustive_labels


def write_table(rows: list[dict], path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    if kind == "saved":
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(path)
        return
    arrow = pytest.importorskip("pyarrow")
    table = arrow.Table.from_pylist(rows)
    if kind == "parquet":
        from pyarrow import parquet

        parquet.write_table(table, path)
    else:
        with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)


def test_whole_videos_and_their_clips_are_told_apart_by_length(folder):
    shutil.move(make_video(folder / "long.mp4", 80), folder / "clip.mp4")
    path = write(folder / "rows.json", VIDEO_TRACK)
    (sample,), _ = read_labels("molmo2_video_track", path)
    assert [o.frame_index for o in sample.annotations[0].observations] == [40, 59]


def test_ultralytics_asks_where_six_columns_can_mean_two_things(folder):
    write(folder / "classes.txt", "person\n")
    path = write(folder / "labels" / "clip_1.txt", "0 0.5 0.5 0.1 0.4 7\n")
    with pytest.raises(UserError, match=r"clip_1.txt:1: six fields: .*track again with save_conf"):
        read_labels("ultralytics_track", path, folder)
    write(path.with_name("clip_2.txt"), "0 0.5 0.5 0.1 0.4 0.7 1\n")
    write(path, "0 0.5 0.5 0.1 0.4 0.7 1\n")
    (sample,), report = read_labels("ultralytics_track", path.parent, folder)
    assert [o.frame_index for o in sample.annotations[0].observations] == [0, 1]
    assert reasons(report.notes) == {"written by a model, not by an annotator": 1}
    (folder / "classes.txt").unlink()
    with pytest.raises(UserError, match="no class names"):
        read_labels("ultralytics_track", path.parent, folder)


def test_supervision_without_frames_is_refused_and_json_is_read(folder):
    path = write(folder / "clip.csv", SINK.replace("frame_index", "index"))
    with pytest.raises(UserError, match="no frame_index; expected a frame_index in every row"):
        read_labels("supervision", path)
    head, first = SINK.split("\n")[:2]
    rows = [dict(zip(head.split(","), first.split(","), strict=True)) | {"frame_index": 3}]
    (sample,), _ = read_labels("supervision", write(folder / "clip.json", rows))
    assert sample.annotations == (Track("4", "dog", (boxed(3, 10, 10, 20, 30),)),)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickles_of_all_protocols_and_orders_are_the_same(folder, protocol):
    data = pickle.loads((ROOT / "tapvid_trusted" / "basic" / "tapvid.pkl").read_bytes())
    clip = data["clip"] | {"video": np.zeros((NUM_FRAMES, 4, 4, 3), np.uint8)}
    clip["points"] = np.asfortranarray(clip["points"].astype(">f8"))
    path = write(folder / "x.pkl", pickle.dumps({"clip": clip}, protocol))
    (sample,), _ = read_labels("tapvid_trusted", path)
    (wanted,), _ = BASIC["tapvid_trusted"].write(folder / "golden").read()
    assert sample.annotations == wanted.annotations


def test_pickles_that_would_build_something_are_refused(folder):
    class Bad:
        def __reduce__(self):
            return (print, ("this must not be seen",))

    path = write(folder / "x.pkl", pickle.dumps({"clip": Bad()}))
    with pytest.raises(UserError, match=r"it would build builtins.print; expected numpy arrays"):
        read_labels("tapvid_trusted", path)
    with pytest.raises(UserError, match="unknown format 'tapvid'"):
        read_labels("tapvid", path)


def test_sleap_needs_its_library(folder):
    path = write(folder / "x.slp", b"\x89HDF\r\n\x1a\n" + bytes(50))
    assert detect_format(path) == "sleap"
    if importlib.util.find_spec("sleap_io") is None:
        with pytest.raises(UserError, match=r"need sleap-io, which is missing; uv pip install"):
            read_labels("sleap", path)


def test_sleap_instances_become_tracks_of_named_points(folder, monkeypatch):
    """The library is not installed everywhere: objects with the attributes of its classes."""
    skeleton = SimpleNamespace(name="fly", node_names=["head", "tail"])
    predicted = type("PredictedInstance", (SimpleNamespace,), {})

    def instance(rows, track="a", kind=SimpleNamespace):
        named = SimpleNamespace(name=track) if track else None
        return kind(skeleton=skeleton, track=named, numpy=lambda: np.array(rows, float))

    video = SimpleNamespace(filename="C:\\data\\clip.mp4")
    instances = [
        instance([[1, 2], [math.nan, math.nan]]),
        instance([[1, 2], [3, 4]], track=None),
        instance([[1, 2], [3, 4]], kind=predicted),
        instance([[math.nan] * 2] * 2, track="b"),
    ]
    frames = [SimpleNamespace(video=video, frame_idx=np.int64(3), instances=instances)]
    library = SimpleNamespace(load_file=lambda _: SimpleNamespace(labeled_frames=frames))
    monkeypatch.setitem(sys.modules, "sleap_io", library)
    path = write(folder / "x.slp", b"\x89HDF\r\n\x1a\n" + bytes(50))
    (sample,), report = read_labels("sleap", path)
    shape = Keypoints((Keypoint("head", (1.0, 2.0)),))
    assert sample.annotations == (Track("a", "fly", (seen(3, shape),)),)
    counts = {"read": 4, "kept": 1, "skipped": 1, "dropped": 2}
    assert counts_of(report)["fly", "keypoints"] == counts
    frames.clear()
    with pytest.raises(UserError, match="sleap-io finds no frames in it"):
        read_labels("sleap", path)


@pytest.mark.parametrize(
    ("name", "animals", "kept", "skipped"),
    [
        # by eye: pairs of cells per animal and row; an animal without any is left out. In the last
        # three files the third row is four cells short, which is one loss
        ("dlc_testdata.csv", ["animal"], 3, 1),
        ("dlc_testdata_v2.csv", ["animal"], 3, 1),
        ("madlc_testdata.csv", ["Animal1", "Animal2"], 5, 3),
        ("madlc_testdata_v2.csv", ["Animal1", "Animal2"], 5, 3),
        ("maudlc_testdata.csv", ["Animal1", "Animal2", "single"], 7, 2),
        ("maudlc_testdata_v2.csv", ["Animal1", "Animal2", "single"], 7, 2),
        ("CollectedData_LM.csv", ["Animal1", "Animal2", "single"], 7, 2),
    ],
)
def test_deeplabcut_samples(shared, tmp_path, name, animals, kept, skipped):
    folder = shared / "samples" / "deeplabcut" / "sleapiojs_dlc" / "labeled-data" / "video"
    make_video(tmp_path / "video.mp4", 4, (96, 64))
    assert detect_format(folder / name) == "deeplabcut"
    (sample,), report = read_labels("deeplabcut", folder / name, tmp_path)
    assert [track.id for track in sample.annotations] == animals
    counts = [c for c in report.counts if c.kind == "keypoints"]
    assert (sum(c.kept for c in counts), sum(c.skipped for c in counts)) == (kept, skipped)
    second = sample.annotations[0].observations[1]
    assert second.frame_index == 1
    assert [p.name for p in second.shape.points] == ["A", "C"]  # B is empty in row 2
    lines = (folder / name).read_text().split()
    (wanted,) = {line.count(",") for line in lines if line.startswith("coords")}
    short = sum(line.count(",") != wanted for line in lines if line.startswith("labeled-data"))
    assert reasons(report.dropped) == (
        {"number of fields differs from the header": short} if short else {}
    )


# ------------------------------------------------------------------------------- what holds for all
