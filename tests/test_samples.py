"""Every real file in ``../shared/samples``: what comes out of it, or the one reason for nothing.

`READ` states samples and rows for each label file; `rows` of a file are counted here a second time
from the raw file, with the standard library, numpy and h5py only (`RAW`), so a reader that skips
something in silence fails. What is left out or dropped was counted by eye; the comment says what.
`REFUSED` holds all other files, with the reason that the user is told. A last test sees to it that
no file of the folder is in neither table. Pictures and videos that the samples lack are stood in
for: pictures by black ones, videos by their times alone.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from molmo_tune.errors import UserError
from molmo_tune.labels.formats.table.table import TableLayout
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.survey import detect_format
from molmo_tune.media.video import VideoInfo

MEDIA_SUFFIXES = (".jpg", ".jpeg", ".png", ".mp4", ".mkv")
BOOKKEEPING = ("image", "video", "annotation", "prediction", "task", "file")


@dataclass(frozen=True)
class Expected:
    """What must come out of a file.

    Args:
        samples: media with something known about them.
        rows: read, kept, left out and dropped.
        media: a folder of the samples, or stand-ins: sizes of pictures, frames and size of videos.
        detected: the format is found out; else the user must say.
        options: see `read_labels`.
    """

    format: str
    samples: int
    rows: tuple[int, int, int, int]
    media: str | Mapping[str, Any] | None = None
    detected: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


def all_kept(format: str, samples: int, rows: int, media: Any = None) -> Expected:
    return Expected(format, samples, (rows, rows, 0, 0), media)


def video(name: str, num_frames: int, size_wh: tuple[int, int]) -> dict[str, Any]:
    return {name: (num_frames, size_wh)}


LASOT = {"airplane-1.mp4": (25, (640, 360)), "airplane-2.mp4": (25, (640, 360))}
DLC = video("video.mp4", 4, (96, 64))
POINTS = {"test_pattern_qbist.jpg": (700, 500), "sinus_test_pattern.jpg": (500, 400)}
MOSQUITOS = {
    "train_10307.jpeg": (3024, 4032),
    "train_10308.jpeg": (1058, 943),
    "train_10309.jpeg": (1024, 1365),
    "train_10310.jpeg": (2976, 3968),
}
ASTRO = "nick-owuor-astro-nic-visuals-wDifg5xc9Z4-unsplash.jpg"
LAYOUT = TableLayout(
    "img_fName", "class_label", ("bbx_xtl", "bbx_ytl", "bbx_xbr", "bbx_ybr"), "pixel"
)
COCO = "coco_json/datumaro_instances"
POSE = "coco_keypoints/datumaro_person_keypoints"
SHARKS = "roboflow_yolo_seg_mixed"
CLASSIC = "yolo_classic_darknet"
CVAT = "cvat_images_xml/datumaro"
STUDIO = "label_studio_image"
SDK = f"{STUDIO}/sdk_export_yolo"
OPEN = "open_images/v6"
NET = "trackingnet_vot/TRAIN_0"
CUT = "deeplabcut/sleapiojs_dlc/labeled-data/video"

READ: dict[str, Expected] = {
    f"{COCO}/annotations/instances_train.json": all_kept("coco", 1, 1, f"{COCO}/images/train"),
    # one crowd each
    f"{COCO}/annotations/instances_val.json": Expected(
        "coco", 1, (2, 1, 1, 0), f"{COCO}/images/val"
    ),
    f"{POSE}/annotations/person_keypoints_train.json": all_kept(
        "coco", 1, 1, f"{POSE}/images/train"
    ),
    f"{POSE}/annotations/person_keypoints_val.json": Expected(
        "coco", 1, (2, 1, 1, 0), f"{POSE}/images/val"
    ),
    "roboflow_coco/train/_annotations.coco.json": all_kept("coco", 7, 44),
    "roboflow_coco/valid/_annotations.coco.json": all_kept("coco", 2, 10),
    "roboflow_coco/test/_annotations.coco.json": all_kept("coco", 1, 6),
    f"{SHARKS}/train/labels": all_kept("yolo", 7, 44),
    f"{SHARKS}/valid/labels": all_kept("yolo", 2, 10),
    f"{SHARKS}/test/labels": all_kept("yolo", 1, 6),
    "yolo_pose/sleapiojs/train/labels": all_kept("yolo", 2, 3),
    "yolo_pose/sleapiojs/val/labels": all_kept("yolo", 1, 1),
    f"{CLASSIC}/strict/obj_train_data/1.txt": all_kept("yolo", 1, 2),
    f"{CLASSIC}/labels/labels/train/1.txt": all_kept("yolo", 1, 2),
    f"{CLASSIC}/labels/labels/val/1.txt": all_kept("yolo", 1, 2),
    f"{CLASSIC}/annotations/Annotations/1.txt": all_kept(
        "yolo", 1, 2, f"{CLASSIC}/annotations/Images"
    ),
    "yolo_obb/train/labelTxt": all_kept("dota", 2, 2),
    "yolo_obb/val/labelTxt": all_kept("dota", 1, 2),
    "pascal_voc/roboflow_chess": all_kept("pascal_voc", 3, 22),
    # three polylines and three shapes of several points
    f"{CVAT}/export_project/annotations.xml": Expected("cvat_images", 6, (12, 6, 0, 6)),
    # a polyline and several points, and a polygon without a label
    f"{CVAT}/export_task/train.xml": Expected("cvat_images", 1, (4, 1, 0, 3)),
    # two polylines, several points, a tag; the three points of the skeleton are part of it
    "cvat_docs_xml/images_mask_skeleton_tag.xml": Expected(
        "cvat_images", 1, (8, 4, 0, 4), {"filename000.jpg": (1600, 1200)}
    ),
    # polygon and skeleton: outside in frames 1, 7 and 14
    "cvat_docs_xml/video_skeleton_polygon.xml": Expected(
        "cvat_video", 1, (12, 6, 6, 0), video("other.mp4", 20, (640, 480))
    ),
    # four rows outside, a polyline, several points
    "cvat_video_xml/datumaro_for_video/annotations.xml": Expected(
        "cvat_video", 1, (7, 1, 4, 2), video("t.mp4", 20, (25, 20))
    ),
    f"{STUDIO}/mlbackend_brush.json": all_kept(
        "label_studio_image", 1, 3, {"mlbackend_brush.jpg": (768, 576)}
    ),
    f"{STUDIO}/mlbackend_keypoints.json": all_kept(
        "label_studio_image", 1, 7, {"mlbackend_keypoints.jpg": (900, 900)}
    ),
    # beside the annotation two predictions, which are left out
    f"{STUDIO}/frontend_image_bbox/annotations/1.json": all_kept(
        "label_studio_image", 1, 1, {ASTRO: (900, 600)}
    ),
    # of the three tasks one has two predictions of a rectangle each; the first is taken
    f"{STUDIO}/frontend_image_bbox/tasks.json": all_kept(
        "label_studio_image", 1, 1, {ASTRO: (900, 600)}
    ),
    f"{STUDIO}/frontend_image_polygons/annotations/0.json": all_kept(
        "label_studio_image", 1, 1, {"spacexmoon-800x501.jpg": (800, 501)}
    ),
    f"{STUDIO}/frontend_image_polygons/tasks.json": all_kept(
        "label_studio_image", 1, 1, {"Fronalpstock_big.jpg": (1000, 500)}
    ),
    # the first image was annotated twice, and the first annotation is taken
    f"{SDK}/data.json": all_kept(
        "label_studio_image", 2, 4, {"image1.jpg": (2800, 2800), "image2.jpg": (2800, 2800)}
    ),
    # five relations between regions
    f"{SDK}/data_keypoints.json": Expected(
        "label_studio_image", 1, (9, 4, 5, 0), {"image1.jpg": (216, 174)}
    ),
    f"{SDK}/data_obb.json": all_kept(
        "label_studio_image",
        3,
        25,
        {"image1.jpg": (597, 768), "image2.jpg": (433, 768), "image3.jpg": (716, 768)},
    ),
    f"{SDK}/data_polygons.json": all_kept("label_studio_image", 1, 1, {"image2.jpg": (640, 426)}),
    "label_studio_timeline/test_timeline_labels_1.json": all_kept(
        "label_studio_video", 1, 2, "label_studio_video/mlbackend"
    ),
    # a row per key frame
    "label_studio_video/mlbackend/opossum_snow_short_1.json": all_kept(
        "label_studio_video", 1, 142
    ),
    "label_studio_video/mlbackend/opossum_snow_short_2.json": all_kept(
        "label_studio_video", 1, 100
    ),
    # three regions without a label in one image; three of an image that is not there
    "via/via1/unit_test_annotation1.csv": Expected("via", 2, (12, 6, 0, 6), POINTS),
    "via/via1/unit_test_annotation2.json": Expected("via", 2, (12, 6, 0, 6), POINTS),
    f"{OPEN}/annotations/oidv6-train-annotations-bbox.csv": all_kept(
        "open_images", 1, 1, f"{OPEN}/images/train"
    ),
    "plain_csv/mosquitos.csv": Expected(
        "table", 4, (4, 4, 0, 0), MOSQUITOS, detected=False, options={"layout": LAYOUT}
    ),
    "activitynet_json/mmaction2/gt.json": all_kept(
        "activitynet",
        2,
        4,
        video("v_bYUmtLBL7W4.mp4", 6735, (32, 32)) | video("v_hDPLy21Yyuk.mp4", 2287, (32, 32)),
    ),
    "activitynet_json/mmaction2_action_test_anno.json": all_kept(
        "activitynet", 2, 2, video("v_test1.mp4", 30, (32, 32)) | video("v_test2.mp4", 60, (9, 9))
    ),
    "ava_csv/ava_sample.csv": all_kept(
        "ava",
        2,
        8,
        video("0f39OWEqJ24.mp4", 30_000, (32, 32)) | video("_-Z6wFjXtGQ.mp4", 30_000, (32, 32)),
    ),
    "ava_csv/eval/gt.csv": all_kept(
        "ava",
        3,
        12,
        video("3reY9zJKhqN.mp4", 60_000, (32, 32))
        | video("5HNXoce1raG.mp4", 60_000, (32, 32))
        | video("HmR8SmNIoxu.mp4", 60_000, (32, 32)),
    ),
    # two labels of the one frame have the same id
    "bdd100k/example_annotation.json": Expected(
        "scalabel", 1, (4, 3, 0, 1), video("b1c81faa-3df17267.mp4", 1, (1280, 720))
    ),
    "sav/sav_000001_manual.json": Expected(
        "sav", 1, (605, 480, 125, 0), video("sav_000001.mp4", 483, (480, 848))
    ),
    "davis_masks/osvos_results/bike-packing": all_kept(
        "mask_folder", 1, 60, video("bike-packing.mp4", 40, (910, 480))
    ),
    # class numbers 4 and 3 are c and d of labels.txt
    "mots_png/train/instances": Expected(
        "mots_challenge", 1, (4, 4, 0, 0), video("instances.mp4", 3, (5, 1)), detected=False
    ),
    "mots_png/val/instances": Expected(
        "mots_challenge", 1, (1, 1, 0, 0), video("instances.mp4", 3, (5, 1)), detected=False
    ),
    "youtube_vis_json/ann.json": all_kept("tao", 1, 1, video("0043f083b5.mp4", 1, (1280, 720))),
    # two rows of category 95, which has no name
    "tao_lvis_json/ann.json": Expected(
        "tao", 1, (4, 2, 0, 2), video("v_f69ebe5b731d3e87c1a3992ee39c3b7e.mp4", 450, (640, 480))
    ),
    "lasot/lasot_test_dummy.json": all_kept("tao", 2, 50, LASOT),
    "lasot/airplane-1/groundtruth.txt": all_kept("sot", 1, 25, LASOT),
    "lasot/airplane-2/groundtruth.txt": all_kept("sot", 1, 25, LASOT),
    # trackers' results, which nothing in the file tells from labels
    "lasot/airplane-1/track_results.txt": all_kept(
        "sot", 1, 25, video("track_results.mp4", 25, (640, 360))
    ),
    "lasot/airplane-2/track_results.txt": all_kept(
        "sot", 1, 25, video("track_results.mp4", 25, (640, 360))
    ),
    f"{NET}/anno/gt_for_eval.txt": all_kept(
        "sot", 1, 25, video("gt_for_eval.mp4", 25, (1000, 1000))
    ),
    f"{NET}/anno/track_results.txt": all_kept(
        "sot", 1, 25, video("track_results.mp4", 25, (1000, 1000))
    ),
    **{
        f"{NET}/video-{n}/{name}.txt": Expected(
            "sot",
            1,
            (rows, rows, 0, 0),
            video(f"{name}.mp4", rows, (1000, 1000)),
            detected=not name.startswith("vot"),  # eight numbers could be three formats
        )
        for n in (1, 2)
        for name, rows in (
            (f"video-{n}", 2),
            ("gt_for_eval", 25),
            ("track_results", 25),
            ("vot2018_gt_for_eval", 25),
        )
    },
    # instances are left out where no cell is filled; a short row is one loss
    f"{CUT}/dlc_testdata.csv": Expected("deeplabcut", 1, (4, 3, 1, 0), DLC),
    f"{CUT}/dlc_testdata_v2.csv": Expected("deeplabcut", 1, (4, 3, 1, 0), DLC),
    f"{CUT}/madlc_testdata.csv": Expected("deeplabcut", 1, (8, 5, 3, 0), DLC),
    f"{CUT}/madlc_testdata_v2.csv": Expected("deeplabcut", 1, (8, 5, 3, 0), DLC),
    f"{CUT}/maudlc_testdata.csv": Expected("deeplabcut", 1, (10, 7, 2, 1), DLC),
    f"{CUT}/maudlc_testdata_v2.csv": Expected("deeplabcut", 1, (10, 7, 2, 1), DLC),
    f"{CUT}/CollectedData_LM.csv": Expected("deeplabcut", 1, (10, 7, 2, 1), DLC),
    "sleap/centered_pair_standard.analysis.h5": all_kept(
        "sleap", 1, 2274, video("centered_pair_low_quality.mp4", 1100, (384, 384))
    ),
    "sleap/simple_standard.analysis.h5": all_kept(
        "sleap", 1, 3, video("test_video.mp4", 3, (384, 384))
    ),
}

UNKNOWN = "unknown label format"
NO_TRACK = "an instance without a track has no identity"
CONFIG = "looks like a Label Studio labeling config"
DATUMARO = "looks like Datumaro JSON; expected a supported format; export COCO or CVAT instead"
REFUSED: dict[str, str] = {
    "README.md": UNKNOWN,
    "activitynet_json/mmaction2/result.json": "looks like model detections",
    "ava_csv/action_list.txt": UNKNOWN,
    "ava_csv/eval/action_list.txt": UNKNOWN,
    "ava_csv/ava_excluded_timestamps_sample.csv": UNKNOWN,
    "ava_csv/ava_proposals_sample.pkl": "looks like a pickle",
    "ava_csv/eval/proposal.pkl": "looks like a pickle",
    "ava_csv/eval/pred.csv": UNKNOWN,
    "datumaro_json/legacy/annotations/train.json": DATUMARO,
    "datumaro_json/legacy/annotations/validation.json": DATUMARO,
    "datumaro_json/legacy/annotations/test.json": DATUMARO,
    "deeplabcut/sleapiojs_dlc/Documentation_data-real_numpy.pickle": "looks like a pickle",
    "deeplabcut/sleapiojs_dlc/madlc_230_config.yaml": UNKNOWN,
    **{
        f"{STUDIO}/frontend_image_{kind}/{name}": reason
        for kind in ("bbox", "polygons")
        for name, reason in (
            ("START.md", UNKNOWN),
            ("config.xml", CONFIG),
            ("index.js", UNKNOWN),
        )
    },
    **{f"{SDK}/label_config{kind}.xml": CONFIG for kind in ("", "_keypoints", "_obb", "_polygons")},
    "lasot/create_assets.py": UNKNOWN,
    "motchallenge/datumaro/mot_seq/gt/gt.txt": "id -1: a detection without identity",
    "motchallenge/datumaro/mot_seq_with_seqinfo/gt/gt.txt": "id -1: a detection without identity",
    "motchallenge/datumaro/mot_seq/gt/labels.txt": UNKNOWN,
    "motchallenge/datumaro/mot_seq_with_seqinfo/gt/labels.txt": UNKNOWN,
    "motchallenge/datumaro/mot_seq_with_seqinfo/seqinfo.ini": UNKNOWN,
    "mots_png/train/instances/labels.txt": UNKNOWN,
    "mots_png/val/instances/labels.txt": UNKNOWN,
    "open_images/v5/annotations/class-descriptions.csv": UNKNOWN,
    "open_images/v5/annotations/test-images-with-rotation.csv": UNKNOWN,
    "open_images/v5/annotations/train-images-with-labels-with-rotation.csv": UNKNOWN,
    f"{OPEN}/annotations/bbox_labels_600_hierarchy.json": UNKNOWN,
    f"{OPEN}/annotations/image_ids_and_rotation.csv": UNKNOWN,
    f"{OPEN}/annotations/images.meta": UNKNOWN,
    f"{OPEN}/annotations/oidv6-class-descriptions.csv": UNKNOWN,
    f"{OPEN}/annotations/oidv6-train-annotations-human-imagelabels.csv": UNKNOWN,
    f"{OPEN}/annotations/test-annotations-human-imagelabels.csv": UNKNOWN,
    f"{OPEN}/annotations/train-annotations-object-segmentation.csv": UNKNOWN,
    # its one row stands for a group, and the class has no name
    f"{OPEN}/annotations/test-annotations-bbox.csv": "no sample could be read",
    "pascal_voc/roboflow_chess/_README.txt": UNKNOWN,
    f"{SHARKS}/README.dataset.txt": UNKNOWN,
    f"{SHARKS}/data.yaml": "a YOLO data.yaml",
    "sleap/minimal_instance.slp": NO_TRACK,
    "sleap/minimal_instance.pkg.slp": NO_TRACK,
    f"{NET}/full_occlusion.txt": UNKNOWN,
    f"{NET}/out_of_view.txt": UNKNOWN,
    **{
        f"{NET}/video-{n}/{name}": UNKNOWN
        for n in (1, 2)
        for name in ("absence.label", "cover.label", "vot2018_track_results.txt")
    },
    "trackingnet_vot/annotations/trackingnet_train_infos.txt": UNKNOWN,
    f"{CLASSIC}/annotations/obj.names": UNKNOWN,
    f"{CLASSIC}/labels/README.txt": UNKNOWN,
    f"{CLASSIC}/labels/obj.names": UNKNOWN,
    f"{CLASSIC}/strict/obj.data": UNKNOWN,
    f"{CLASSIC}/strict/obj.names": UNKNOWN,
    f"{CLASSIC}/strict/train.txt": UNKNOWN,
    "yolo_obb/data.yaml": "a YOLO data.yaml",
    "yolo_pose/sleapiojs/data.yaml": "a YOLO data.yaml",
    "youtube_vis_json/results.json": "looks like model detections",
}


# ---------------------------------------------------------------------- rows, counted a second time


def files_of(path: Path, *suffixes: str) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in found if file.suffix in suffixes]


def lines_of(path: Path, *suffixes: str) -> list[str]:
    lines = [x for file in files_of(path, *suffixes) for x in file.read_text().splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def entries(value: Any, key: str) -> list[Any]:
    """All values of a key in JSON, at any depth."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value[key]] if isinstance(value, dict) and key in value else []
    return found + [x for part in inner for x in entries(part, key)]


def studio_rows(path: Path) -> int:
    """Regions and relations of the first annotation; of a video its key frames or ranges."""
    data = json.loads(path.read_text())
    tasks = data if isinstance(data, list) else [data]
    works = [t.get("annotations") or t.get("predictions") or [t] for t in tasks]
    regions = [r for work in works for result in entries(work, "result")[:1] for r in result]
    values = [region.get("value") or {} for region in regions]
    return sum(len(v.get("sequence") or v.get("ranges") or [v]) for v in values)


def cvat_rows(path: Path, parent: str) -> int:
    return sum(len(node) for node in ElementTree.parse(path).iter(parent))


def via_rows(path: Path) -> int:
    if path.suffix == ".csv":
        rows = list(csv.DictReader(path.open()))
        return sum(row["region_shape_attributes"] not in ("", "{}") for row in rows)
    return sum(map(len, entries(json.loads(path.read_text()), "regions")))


def values_in(path: Path) -> int:
    pictures = [np.array(Image.open(file)) for file in files_of(path, ".png")]
    return sum(len(set(np.unique(pixels).tolist()) - {0}) for pixels in pictures)


def deeplabcut_rows(path: Path) -> int:
    """One per animal and row, but one for a row that is short."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    head = next((line for line in lines if line[0] == "individuals"), None)
    animals = len(set(head) - {"individuals", ""}) if head else 1
    width = next(len(line) for line in lines if line[0] == "coords")
    rows = [line for line in lines if line[0].startswith("labeled-data")]
    return sum(animals if len(row) == width else 1 for row in rows)


def sleap_rows(path: Path) -> int:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:
        tracks = file["tracks"][:]
    return int(np.isfinite(tracks).any(axis=(2, 3)).sum())


RAW: dict[str, Callable[[Path], int]] = {
    "coco": lambda path: len(json.loads(path.read_text())["annotations"]),
    "tao": lambda path: len(json.loads(path.read_text())["annotations"]),
    "yolo": lambda path: len(lines_of(path, ".txt")),
    "dota": lambda path: len(lines_of(path, ".txt")),
    "pascal_voc": lambda path: "".join(lines_of(path, ".xml")).count("<object>"),
    "cvat_images": lambda path: cvat_rows(path, "image"),
    "cvat_video": lambda path: cvat_rows(path, "track"),
    "label_studio_image": studio_rows,
    "label_studio_video": studio_rows,
    "via": via_rows,
    "open_images": lambda path: len(lines_of(path, ".csv")) - 1,
    "table": lambda path: len(lines_of(path, ".csv")) - 1,
    "activitynet": lambda path: len(re.findall(r'"segment"', path.read_text())),
    "ava": lambda path: len(lines_of(path, ".csv")),
    "scalabel": lambda path: sum(map(len, entries(json.loads(path.read_text()), "labels"))),
    "sav": lambda path: sum(map(len, json.loads(path.read_text())["masklet"])),
    "mask_folder": values_in,
    "mots_challenge": values_in,
    "sot": lambda path: len(lines_of(path, ".txt")),
    "deeplabcut": deeplabcut_rows,
    "sleap": sleap_rows,
}


def stand_in(media: Mapping[str, Any], folder: Path) -> dict[str, VideoInfo]:
    """Write black pictures and empty files for videos, of which only the times are known."""
    videos = {}
    for name, known in media.items():
        if isinstance(known[1], tuple):
            num_frames, size_wh = known
            times = tuple(n / 30 for n in range(num_frames))
            videos[name] = VideoInfo(times, num_frames / 30, size_wh)
            (folder / name).touch()
        else:
            Image.new("1", known).save(folder / name)
    return videos


@pytest.mark.parametrize("name", READ)
def test_real_files_become_what_they_say(shared, tmp_path, monkeypatch, name):
    path, expected = shared / "samples" / name, READ[name]
    media = shared / "samples" / expected.media if isinstance(expected.media, str) else None
    if isinstance(expected.media, dict):
        videos, media = stand_in(expected.media, tmp_path), tmp_path
        monkeypatch.setattr(
            "molmo_tune.labels.media_source.probe_video", lambda file: videos[file.name]
        )
    if expected.format == "sleap":
        pytest.importorskip("sleap_io")
    samples, report = read_labels(expected.format, path, media, **expected.options)
    counts = [c for c in report.counts if c.kind not in BOOKKEEPING]
    found = tuple(
        sum(getattr(c, what) for c in counts) for what in ("read", "kept", "skipped", "dropped")
    )
    assert (len(samples), found) == (expected.samples, expected.rows)
    assert RAW[expected.format](path) == expected.rows[0]
    if expected.detected:
        assert detect_format(path) == expected.format


@pytest.mark.parametrize("name", REFUSED)
def test_other_real_files_are_refused_with_a_reason(shared, tmp_path, monkeypatch, name):
    path = shared / "samples" / name
    if path.suffix == ".slp":
        pytest.importorskip("sleap_io")
    times = tuple(n / 30 for n in range(9))
    info = VideoInfo(times, 0.3, (1000, 1000))
    monkeypatch.setattr("molmo_tune.labels.media_source.probe_video", lambda _: info)
    (tmp_path / "any.mp4").touch()
    media = shared / "samples" / OPEN / "images" / "test"
    with pytest.raises(UserError) as caught:
        read_any(path, media if "open_images" in name else tmp_path / "any.mp4")
    assert REFUSED[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def read_any(path: Path, media: Path) -> None:
    read_labels(detect_format(path), path, media)


def test_no_file_is_left_out(shared):
    """Files of a folder that is read as a whole are read with it."""
    root = shared / "samples"
    named = {root / name for name in (*READ, *REFUSED)}
    files = [file for file in root.rglob("*") if file.is_file()]
    labels = [file for file in files if file.suffix.lower() not in MEDIA_SUFFIXES]
    missing = [file for file in labels if not named & {file, *file.parents}]
    assert [str(file.relative_to(root)) for file in missing] == []
    assert len(labels) > 100
