"""Label readers: samples, reports, and one clear error for every broken file.

Expected numbers are counted from the raw files with the standard library, or come from the simplest
implementation of the rules (`visible_frames`, `straight_line`).
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molmo_tune.errors import UserError
from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.labels.formats.jsonl import read_jsonl, write_jsonl
from molmo_tune.labels.geometry.masks import unpack
from molmo_tune.labels.read import READERS, read_labels
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import (
    Box,
    Dialogue,
    Instance,
    Keypoint,
    Keypoints,
    Media,
    Observation,
    Point,
    Sample,
    Track,
)
from molmo_tune.labels.survey import detect_format
from molmo_tune.labels.tracks import Row, observations, upright_box
from molmo_tune.media.video import VideoInfo
from tests.labels.media import draw_media

SAMPLES = Path(__file__).parent / "data" / "samples"
SIZE = (100, 50)
NUM_FRAMES = 20


def make_video(path: Path, num_frames: int = NUM_FRAMES, size_wh: tuple[int, int] = SIZE) -> Path:
    """Draw a black video at 10 fps."""
    return draw_media(path, size_wh, num_frames)


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4")


@pytest.fixture
def folder(tmp_path, clip) -> Path:
    """Create a folder with one video, clip.mp4."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    return tmp_path


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def counts_of(report) -> dict[tuple[str, str], dict[str, int]]:
    """Return nonzero counts by label and kind, after checking that they add up."""
    for c in report.counts:
        assert c.read == c.kept + c.skipped + c.dropped, c
    names = ("read", "kept", "interpolated", "clipped", "corrected", "skipped", "dropped")
    return {
        (c.label, c.kind): {n: getattr(c, n) for n in names if getattr(c, n)} for c in report.counts
    }


def reasons(found) -> Counter[str]:
    total: Counter[str] = Counter()
    for reason in found:
        total[reason.reason] += reason.count
    return total


# --------------------------------------------------------------------------------- CVAT for video


def cvat(*tracks: str, meta: str = "<meta><task><name>x</name></task></meta>") -> str:
    body = "\n".join(tracks)
    head = '<?xml version="1.0" encoding="utf-8"?>'
    return f"{head}\n<annotations>\n<version>1.1</version>\n{meta}\n{body}\n</annotations>"


def box(frame: object, left: object = 10, extra: str = "") -> str:
    corners = f'xtl="{left}" ytl="10" xbr="{left}0" ybr="20"'
    return f'<box frame="{frame}" outside="0" occluded="0" keyframe="1" {corners} {extra}/>'


def track(*rows: str, label: str = "car", id: object = 0, extra: str = "") -> str:
    lines = "\n".join(rows)
    return f'<track id="{id}" label="{label}" {extra}>\n{lines}\n</track>'


GONE = '<box frame="{}" outside="1" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"/>'


def read_cvat(folder: Path, text: str, media: Path | None = None):
    return read_labels("cvat_video", write(folder / "labels.xml", text), media)


def test_cvat_rows_become_observations_at_their_frame_times(folder):
    rows = [
        '<box frame="2" outside="0" occluded="1" xtl="10" ytl="20" xbr="30" ybr="40"/>',
        '<box frame="3" outside="0" keyframe="0" xtl="11" ytl="20" xbr="31" ybr="40"/>',
        GONE.format(4),
    ]
    (sample,), report = read_cvat(folder, cvat(track(*rows, id=7)))
    assert sample == Sample(
        "clip",
        Media("video", (folder / "clip.mp4",), SIZE, 2.0),
        (
            Track(
                "7",
                "car",
                (
                    Observation(0.2, 2, Box((10, 20, 30, 40)), occluded=True),
                    Observation(0.3, 3, Box((11, 20, 31, 40)), interpolated=True),
                ),
            ),
        ),
    )
    assert counts_of(report) == {
        ("", "video"): {"read": 1, "kept": 1},
        ("car", "box"): {"read": 3, "kept": 2, "skipped": 1},
    }
    assert report.num_dropped == 0
    assert report.skipped[0].places == (f"{folder / 'labels.xml'}:8",)


def test_cvat_times_come_from_the_video_not_from_a_frame_rate(tmp_path):
    video = SAMPLES / "videos" / "vfr.mp4"
    with av.open(str(video)) as container:
        decoded = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    decoded = [time - decoded[0] for time in decoded]
    gaps = np.diff(decoded)
    assert gaps.max() > 1.5 * gaps.min()  # the clip is one on which n / fps fails
    rows = [box(frame) for frame in range(len(decoded))]
    (sample,), _ = read_cvat(tmp_path, cvat(track(*rows)), video)
    times = [o.time_s for o in sample.annotations[0].observations]
    assert times == pytest.approx(decoded, abs=1e-4)
    assert times != pytest.approx([n * decoded[-1] / 44 for n in range(45)], abs=0.05)


def test_cvat_gaps_are_filled_except_across_outside_or_dropped_rows(folder):
    rows = [
        box(1, 1),
        box(4, 4),  # 2 and 3 are filled
        GONE.format(6),
        box(8, 1),
        box(10, "nan"),  # dropped: 9 and 11 stay empty
        box(12, 1),
    ]
    (sample,), report = read_cvat(folder, cvat(track(*rows)))
    found = sample.annotations[0].observations
    assert [o.frame_index for o in found] == [1, 2, 3, 4, 8, 12]
    assert [o.interpolated for o in found] == [False, True, True, False, False, False]
    assert found[1].shape.xyxy_px == pytest.approx((2, 10, 20, 20))
    numbers = {"read": 6, "kept": 4, "interpolated": 2, "skipped": 1, "dropped": 1}
    assert counts_of(report)["car", "box"] == numbers
    assert reasons(report.dropped) == {"coordinate missing or not a number": 1}


def test_cvat_fills_frames_skipped_by_the_task(folder):
    (sample,), report = read_cvat(folder, cvat(track(box(10), box(13), box(16))))
    assert [o.frame_index for o in sample.annotations[0].observations] == list(range(10, 17))
    assert counts_of(report)["car", "box"] == {"read": 3, "kept": 3, "interpolated": 4}


SHAPES = {
    "points": '<points frame="1" points="1,1;5,5" outside="0" occluded="0"/>',
    "polyline": '<polyline frame="1" points="1,1;5,5" outside="0" occluded="0"/>',
    "cuboid": '<cuboid frame="1" xtl1="1" outside="0" occluded="0"/>',
    "polygon": '<polygon frame="1" points="1,1;5,5" outside="0" occluded="0"/>',
    "mask": '<mask frame="1" rle="0, 5" left="1" top="1" width="2" height="2" outside="0"/>',
    "hologram": '<hologram frame="1" outside="0"/>',
}


@pytest.mark.parametrize("kind", SHAPES)
def test_cvat_unsupported_shapes_are_dropped(folder, kind):
    (_,), report = read_cvat(folder, cvat(track(box(1)), track(SHAPES[kind], label="van")))
    assert counts_of(report)["van", kind] == {"read": 1, "dropped": 1}
    (dropped,) = report.dropped
    assert dropped.places == (f"{folder / 'labels.xml'}:9",)
    assert report.num_dropped == 1


def test_cvat_polygons_masks_and_skeletons_are_kept_as_drawn(folder):
    """At 10 fps, a shape is copied to its neighbors within a quarter of a second."""
    corners = '<polygon frame="{}" points="{},1;5,1;5,5" outside="{}" occluded="1"/>'
    polygons = track(corners.format(1, 1, 0), corners.format(3, 2, 0), corners.format(9, 3, 0))
    runs = '<mask frame="4" rle="0, 3, 1" left="1" top="2" width="2" height="2" outside="0"/>'
    parts = (
        '<points label="nose" points="4,5" outside="0" occluded="0"/>'
        '<points label="ear" points="1,1" outside="1"/>'
    )
    rows = [f'<skeleton frame="{n}" keyframe="1">{parts}</skeleton>' for n in (5, 6)]
    gone = rows[1].replace('outside="0"', 'outside="1"')
    text = cvat(polygons, track(runs, label="van"), track(rows[0], gone, label="dog"))
    (sample,), report = read_cvat(folder, text)
    polygon, mask, skeleton = sample.annotations
    found = [
        (o.frame_index, o.shape.parts_px[0][0][0], o.interpolated) for o in polygon.observations
    ]
    assert found == [(1, 1, False), (2, 1, True), (3, 2, False), (9, 3, False)]
    pixels = unpack(mask.observations[0].shape)
    assert sorted(zip(*pixels.nonzero(), strict=True)) == [(2, 1), (2, 2), (3, 1)]
    (pose,) = skeleton.observations
    assert pose.shape == Keypoints((Keypoint("nose", (4.0, 5.0)),))
    assert counts_of(report)["dog", "skeleton"] == {"read": 2, "kept": 1, "skipped": 1}
    assert report.num_dropped == 0


ROWS = {
    # row: outcome, reason, kept box
    'frame="20" xtl="1" ytl="1" xbr="9" ybr="9"': ("dropped", "outside the video", None),
    'frame="-1" xtl="1" ytl="1" xbr="9" ybr="9"': ("dropped", "outside the video", None),
    'frame="1.5" xtl="1" ytl="1" xbr="9" ybr="9"': ("dropped", "not an integer", None),
    'xtl="1" ytl="1" xbr="9" ybr="9"': ("dropped", "not an integer", None),
    'frame="2" ytl="1" xbr="9" ybr="9"': ("dropped", "missing or not a number", None),
    'frame="2" xtl="inf" ytl="1" xbr="9" ybr="9"': ("dropped", "missing or not a number", None),
    'frame="2" xtl="" ytl="1" xbr="9" ybr="9"': ("dropped", "missing or not a number", None),
    'frame="2" xtl="100" ytl="1" xbr="120" ybr="9"': ("dropped", "outside the frame", None),
    'frame="2" xtl="-9" ytl="1" xbr="-1" ybr="9"': ("dropped", "outside the frame", None),
    'frame="2" xtl="5" ytl="1" xbr="5" ybr="9"': ("dropped", "zero area", None),
    'frame="2" xtl="-5" ytl="40" xbr="5" ybr="60"': ("clipped", "", (0, 40, 5, 50)),
    'frame="2" xtl="0" ytl="0" xbr="100.004" ybr="50"': ("kept", "", (0, 0, 100, 50)),
    'frame="2" xtl="9" ytl="9" xbr="1" ybr="1"': ("corrected", "corners reordered", (1, 1, 9, 9)),
    'frame="2" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90"': (
        "corrected",
        "rotated box",
        (18, 12, 22, 32),
    ),
    'frame="2" xtl="1" ytl="1" xbr="9" ybr="9" rotation="0.00"': ("kept", "", (1, 1, 9, 9)),
}


@pytest.mark.parametrize("row", ROWS)
def test_cvat_row_edge_cases(folder, row):
    outcome, reason, kept = ROWS[row]
    text = cvat(track(box(1), label="other"), track(f"<box {row}/>", id=1))
    (sample,), report = read_cvat(folder, text)
    counts = counts_of(report)["car", "box"]
    assert counts[outcome] == 1
    found = [t for t in sample.annotations if t.label == "car"]
    if kept is None:
        assert not found
        assert [reason in r.reason for r in report.dropped] == [True]
    else:
        assert report.num_dropped == 0
        assert found[0].observations[0].shape.xyxy_px == pytest.approx(kept)
        assert counts["kept"] == 1
        assert [reason in r.reason for r in report.corrected] == [True] * bool(reason)


def test_cvat_duplicate_rows_missing_labels_and_attributes_are_counted(folder):
    extra = box(3).replace("/>", '><attribute name="color">red</attribute></box>')
    tracks = [track(box(1), box(1, 2), extra), track(box(2), label="", id=1)]
    (sample,), report = read_cvat(folder, cvat(*tracks))
    assert len(sample.annotations) == 1
    assert reasons(report.dropped) == {"duplicate row for a frame": 1, "no class label": 1}
    assert reasons(report.notes) == {"attribute values are not kept": 1}


def test_cvat_job_project_and_missing_meta(tmp_path, clip):
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clip, tmp_path / name)
    job = (
        "<meta><job><id>3</id><original_size><width>100</width><height>50</height></original_size>"
    )
    job += "</job><source>b.mp4</source></meta>"
    (sample,), _ = read_cvat(tmp_path, cvat(track(box(1)), meta=job))
    assert (sample.id, sample.media.paths) == ("b", (tmp_path / "b.mp4",))

    names = ((1, "a"), (2, "b"), (3, "c"))
    tasks = "".join(f"<task><id>{i}</id><name>{n}.mp4</name></task>" for i, n in names)
    project = f"<meta><project><name>p</name><tasks>{tasks}</tasks></project></meta>"
    tracks = [
        track(box(1), id=0, extra='task_id="2"'),
        track(box(2), id=1, extra='task_id="1"'),
        track(box(3), box(4), id=2, extra='task_id="3"'),
    ]
    samples, report = read_cvat(tmp_path, cvat(*tracks, meta=project))
    assert [(s.id, [t.id for t in s.annotations]) for s in samples] == [("a", ["1"]), ("b", ["0"])]
    assert counts_of(report)["", "video"] == {"read": 3, "kept": 2, "dropped": 1}
    assert counts_of(report)["car", "box"] == {"read": 4, "kept": 2, "dropped": 2}
    with pytest.raises(UserError, match="task 9; expected a task listed"):
        read_cvat(tmp_path, cvat(track(box(1), extra='task_id="9"'), meta=project))
    with pytest.raises(UserError, match="describe 3 media, but media is the single file"):
        read_cvat(tmp_path, cvat(*tracks, meta=project), tmp_path / "a.mp4")

    (sample,), _ = read_cvat(tmp_path, cvat(track(box(1)), meta=""), tmp_path / "a.mp4")
    assert sample.id == "a"
    with pytest.raises(UserError, match=r"do not name their video, and .* has 2"):
        read_cvat(tmp_path, cvat(track(box(1)), meta=""))


def test_cvat_folder_reads_each_file_with_its_own_video(tmp_path, clip):
    for name in ("b", "a"):
        make_dir = tmp_path / "media" / name
        make_dir.mkdir(parents=True)
        shutil.copy(clip, make_dir / f"{name}.mp4")
        write(tmp_path / f"{name}.xml", cvat(track(box(1)), meta=""))
    write(tmp_path / "c.xml", cvat(track(box(1)), meta="<meta><source>A.MP4</source></meta>"))
    samples, report = read_labels("cvat_video", tmp_path, tmp_path / "media")
    assert [s.id for s in samples] == ["a", "b", "a-2"]
    assert report.num_samples == 3
    with pytest.raises(UserError, match="a single file, for 3 label files"):
        read_labels("cvat_video", tmp_path, tmp_path / "media" / "a" / "a.mp4")


def test_cvat_size_must_match_the_video(folder):
    size = "<original_size><width>50</width><height>100</height></original_size>"
    meta = f"<meta><task><name>clip</name>\n{size}</task></meta>"
    with pytest.raises(UserError, match=r"labels.xml:4: annotated at 50x100 .* is 100x50"):
        read_cvat(folder, cvat(track(box(1)), meta=meta))


# ------------------------------------------------------------------------- Label Studio for video


def key(frame: object, x: object = 10.0, enabled: bool = True, **more: object) -> dict[str, object]:
    shape = {"x": x, "y": 20.0, "width": 10.0, "height": 40.0, "rotation": 0}
    return {"frame": frame, "enabled": enabled, **shape, "time": 99, **more}


def region(
    *keys: object, labels: object = ("car",), count: int | None = NUM_FRAMES, **more: object
):
    value = {"sequence": list(keys), "labels": list(labels), "duration": 2.0, "framesCount": count}
    return {"id": "r1", "type": "videorectangle", "from_name": "box", "value": value, **more}


def task(*regions: object, video: str = "/data/upload/1/clip.mp4", **more: object):
    return {"id": 12, "data": {"video": video}, "annotations": [{"result": list(regions)}], **more}


def read_studio(folder: Path, data: object, media: Path | None = None):
    return read_labels("label_studio_video", write(folder / "labels.json", data), media)


def frames_of(sample: Sample) -> list[list[int]]:
    return [[o.frame_index for o in t.observations] for t in sample.annotations]


def test_studio_percent_frames_and_spans(folder):
    keys = [
        key(1, 10),
        key(3, 20),
        key(5, 30, enabled=False),
        key(9, 40),
        key(10, 40, enabled=False),
    ]
    (sample,), report = read_studio(folder, [task(region(*keys))])
    (found,) = sample.annotations
    assert (found.id, found.label) == ("r1", "car")
    assert [o.frame_index for o in found.observations] == [0, 1, 2, 3, 4, 8, 9]
    assert [o.time_s for o in found.observations[:3]] == pytest.approx([0, 0.1, 0.2])
    assert found.observations[0].shape.xyxy_px == pytest.approx((10, 10, 20, 30))
    assert found.observations[1].shape.xyxy_px == pytest.approx((15, 10, 25, 30))
    assert [o.interpolated for o in found.observations] == [0, 1, 0, 1, 0, 0, 0]
    assert counts_of(report)["car", "box"] == {"read": 5, "kept": 5, "interpolated": 2}


@pytest.mark.parametrize(
    ("count", "last"),
    [(15, 14), (NUM_FRAMES, 19), (99, 19), (None, 19)],
)
def test_studio_last_enabled_key_frame_holds_until_the_end(folder, count, last):
    (sample,), report = read_studio(folder, [task(region(key(3), count=count))])
    assert frames_of(sample) == [list(range(2, last + 1))]
    assert counts_of(report)["car", "box"]["interpolated"] == last - 2
    assert len(report.notes) == (count not in (NUM_FRAMES, None))


def visible_frames(keys: list[tuple[int, bool]], count: int) -> set[int]:
    """Apply the editor's rule frame by frame: the last key frame decides."""
    shown = set()
    for frame in range(1, count + 1):
        before = [k for k in sorted(keys) if k[0] <= frame]
        if before and (before[-1][1] or before[-1][0] == frame):
            shown.add(frame - 1)
    return shown


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(1, NUM_FRAMES), st.booleans(), min_size=1, max_size=8))
def test_studio_segments_match_the_editor(folder, keys):
    data = [task(region(*(key(frame, enabled=on) for frame, on in keys.items())))]
    (sample,), _ = read_studio(folder, data)
    assert set(frames_of(sample)[0]) == visible_frames(list(keys.items()), NUM_FRAMES)


def corners_after_turning(x: float, y: float, w: float, h: float, degrees: float):
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    corners = [complex(x, y) + complex(u, v) * turn for u in (0, w) for v in (0, h)]
    xs, ys = [c.real for c in corners], [c.imag for c in corners]
    return min(xs), min(ys), max(xs), max(ys)


KEYS = {
    # change to the key frame: outcome, reason
    ("rotation", 90.0): ("corrected", "rotated"),
    ("rotation", 30.0): ("corrected", "rotated"),
    ("rotation", 360): ("kept", ""),
    ("rotation", None): ("kept", ""),
    ("height", -20.0): ("corrected", "negative"),
    ("width", -10.0): ("corrected", "negative"),
    ("x", 95.0): ("clipped", ""),
    ("x", -20.0): ("dropped", "entirely outside"),
    ("width", 0): ("dropped", "zero area"),
    ("y", float("nan")): ("dropped", "not a number"),
    ("y", None): ("dropped", "not a number"),
    ("y", "much"): ("dropped", "not a number"),
    ("frame", 0): ("dropped", "outside the video"),
    ("frame", 21): ("dropped", "outside the video"),
    ("frame", "soon"): ("dropped", "not an integer"),
    ("frame", 1.5): ("dropped", "not an integer"),
    ("frame", True): ("dropped", "not an integer"),
}


@pytest.mark.parametrize("change", KEYS)
def test_studio_key_frame_edge_cases(folder, change):
    outcome, reason = KEYS[change]
    changed = {**key(2, 50, enabled=False), change[0]: change[1]}
    data = [task(region(key(1), labels=["other"]), region(changed))]
    (sample,), report = read_studio(folder, data)
    assert counts_of(report)["car", "box"][outcome] == 1
    found = [t for t in sample.annotations if t.label == "car"]
    if outcome == "dropped":
        assert not found
        assert [reason in f.reason for f in report.dropped] == [True]
        return
    x, y, w, h = (float(changed[name]) for name in ("x", "y", "width", "height"))
    turned = corners_after_turning(x, y / 2, w, h / 2, float(changed["rotation"] or 0))
    clipped = np.clip(turned, 0, [100, 50, 100, 50])
    assert found[0].observations[0].shape.xyxy_px == pytest.approx(tuple(clipped))
    assert [reason in f.reason for f in report.corrected] == [True] * bool(reason)


def test_studio_skips_other_annotators_cancelled_annotations_and_predictions(folder):
    done = [
        {"was_cancelled": True, "result": [region(key(1))]},
        {"result": [region(key(2, enabled=False))]},
        {"result": [region(key(3))]},
    ]
    entries = [
        {
            "id": 1,
            "data": {"video": "clip.mp4"},
            "annotations": done,
            "predictions": [{"result": []}],
        },
        {"id": 2, "data": {"video": "clip.mp4"}, "annotations": []},
    ]
    (sample,), report = read_studio(folder, entries)
    assert frames_of(sample) == [[1]]
    assert reasons(report.skipped) == {
        "cancelled by the annotator": 1,
        "another annotation of the same task": 1,
        "model prediction, not an annotation": 1,
        "not annotated": 1,
    }
    assert report.num_dropped == 0


def test_studio_layouts_give_the_same_samples(folder):
    keys = [key(2), key(4, enabled=False)]
    value = region(*keys)["value"]
    apart = [
        {**region(*keys, labels=()), "id": "q"},
        {"id": "q", "type": "labels", "value": {"labels": ["car"]}},
    ]
    layouts = [
        [task(region(*keys))],
        task(region(*keys)),
        [task(*apart)],
        [{"id": 12, "data": {"clip": "clip.mp4"}, "completions": [{"result": [region(*keys)]}]}],
        [{"data": {"video": "clip.mp4"}, "predictions": [{"result": [region(*keys)]}]}],
        [{"result": [region(*keys)], "model_version": "yolo"}],
        {"result": [region(*keys)]},
        [{"video": "s3://bucket/clip.mp4?x=1", "id": 1, "box": [value], "annotator": 1}],
    ]
    for layout in layouts:
        (sample,), report = read_studio(folder, layout)
        assert [(t.label, t.observations[0].time_s) for t in sample.annotations] == [("car", 0.1)]
        assert frames_of(sample) == [[1, 2, 3]]
        assert counts_of(report)["car", "box"] == {"read": 2, "kept": 2, "interpolated": 1}
    twice = [layouts[-1][0], layouts[-1][0]]
    _, report = read_studio(folder, twice)
    assert reasons(report.skipped) == {"another annotation of the same task": 1}


@pytest.mark.parametrize(
    "name",
    [
        "https://media.example/a/b/clip.mp4",
        "/data/upload/3/1a2b3c4d-clip.mp4",
        "/data/local-files/?d=shared/clip.mp4",
        "gs://bucket/clip.mp4?X-Goog-Signature=ab/c.mp4",
        "C:\\clips\\clip.mp4",
        "CLIP.mp4",
        "clip.avi",
    ],
)
def test_studio_urls_are_looked_up_in_the_media_folder(folder, name):
    make_video(folder / "deeper" / "other.mp4")
    (sample,), _ = read_studio(folder, [task(region(key(1)), video=name)])
    assert sample.media.paths == (folder / "clip.mp4",)


def test_studio_dropped_regions_are_counted(folder):
    regions = [
        region(key(1), labels=["car", "fast"]),
        region(labels=["empty"]),
        region(key(1), labels=[]),
        {"id": "c", "type": "choices", "value": {"choices": ["day"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
    ]
    (sample,), report = read_studio(folder, [task(*regions)])
    assert [t.label for t in sample.annotations] == ["car"]
    assert reasons(report.dropped) == {
        "second class label of a region": 1,
        "region without key frames": 1,
        "no class label": 1,
        "unsupported region type": 2,
    }


def test_studio_several_tasks_need_a_folder(folder):
    tasks = [task(region(key(1))), task(region(key(1)), video="clip2.mp4")]
    with pytest.raises(UserError, match="describe 2 media, but media is the single file"):
        read_studio(folder, tasks, folder / "clip.mp4")
    (_,), report = read_studio(folder, tasks)
    assert [f.places for f in report.dropped if "no video 'clip2.mp4'" in f.reason]
    assert report.num_dropped == 2  # the video and its key frame
    with pytest.raises(UserError, match="several tasks without media names"):
        read_studio(folder, [{"task": n, "result": [region(key(1))]} for n in (1, 2)])


# ----------------------------------------------------------------------------- tracks in general


def straight_line(rows: dict[int, tuple[float, float]], frame: int) -> tuple[float, float]:
    before = max(f for f in rows if f <= frame)
    after = min(f for f in rows if f >= frame)
    share = 0 if after == before else (frame - before) / (after - before)
    (x0, y0), (x1, y1) = rows[before], rows[after]
    return x0 * (1 - share) + x1 * share, y0 * (1 - share) + y1 * share


coordinate = st.floats(0, 50, allow_nan=False)


@given(st.dictionaries(st.integers(0, 30), st.tuples(coordinate, coordinate), min_size=1))
def test_points_move_linearly(points):
    video = VideoInfo(tuple(n**1.5 for n in range(31)), 200.0, SIZE)
    rows = [Row(frame, xy, "here", "point") for frame, xy in points.items()]
    tally = Tally()
    found = observations(rows, video, lambda v: Point((v[0], v[1])), lambda k: tally.of("a", k))
    assert [o.frame_index for o in found] == list(range(min(points), max(points) + 1))
    for o in found:
        assert o.shape.xy_px == pytest.approx(straight_line(points, o.frame_index))
        assert o.time_s == video.starts_s[o.frame_index]
        assert o.interpolated == (o.frame_index not in points)


def test_bounding_boxes_of_rotated_boxes():
    assert upright_box((10, 10), (4, 2), 90, "corner").xyxy_px == pytest.approx((8, 10, 10, 14))
    assert upright_box((10, 10), (4, 2), 90, "center").xyxy_px == pytest.approx((11, 9, 13, 13))
    assert upright_box((10, 10), (4, 2), -90, "corner").xyxy_px == pytest.approx((10, 6, 12, 10))
    assert upright_box((10, 10), (-4, 2), 0, "corner").xyxy_px == (6, 10, 10, 12)


# ------------------------------------------------------------------------------------------ JSONL

text = st.text(max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
shapes = st.one_of(
    st.builds(Point, st.tuples(finite, finite)),
    st.builds(
        lambda x, y, w, h: Box((x, y, x + w, y + h)),
        *[st.floats(-1e6, 1e6)] * 2,
        *[st.floats(0, 1e6)] * 2,
    ),
)
moments = st.builds(
    Observation, st.floats(0, 1e6), st.integers(-1, 10**9), shapes, st.booleans(), st.booleans()
)
tracks = st.builds(Track, text, text, st.lists(moments, max_size=3).map(tuple))
dialogues = st.builds(Dialogue, text, text, text)
pictures = st.builds(Instance, text, text, shapes, st.integers(0, 1))
sizes = st.none() | st.tuples(st.integers(1, 9999), st.integers(1, 9999))
names = st.text(st.characters(blacklist_characters="\0/"), min_size=1, max_size=8).map(Path)


@st.composite
def any_sample(draw) -> Sample:
    kind, count = draw(st.sampled_from([("image", 2), ("video", 1), ("text", 0)]))
    paths = tuple(draw(names) for _ in range(count))
    media = Media(kind, paths, draw(sizes), draw(st.none() | st.floats(0, 1e6)))
    said = draw(st.lists(tracks | dialogues | pictures if count == 2 else tracks, max_size=3))
    return Sample(draw(text), media, tuple(said), tuple(draw(st.lists(text, max_size=2))))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_sample(), min_size=1, max_size=3, unique_by=lambda s: s.id))
def test_jsonl_round_trip(tmp_path, samples):
    path = tmp_path / "deep" / "samples.jsonl"
    write_jsonl(samples, path)
    assert read_jsonl(path) == samples
    assert detect_format(path) == "jsonl"
    assert [p.name for p in path.parent.iterdir()] == ["samples.jsonl"]


def sample_of(path: str, id: str = "a") -> Sample:
    seen = (Observation(0.1, 1, Point((1.0, 2.0))), Observation(0.2, 2, Box((0.0, 0.0, 1.0, 1.0))))
    return Sample(id, Media("video", (Path(path),)), (Track("0", "car", seen),), ("car",))


def test_jsonl_finds_media_as_written_or_in_the_media_folder(folder, monkeypatch):
    path = folder / "samples.jsonl"
    write_jsonl([sample_of(str(folder / "clip.mp4")), sample_of("no.mp4", "b")], path)
    (sample,), report = read_labels("jsonl", path)
    assert sample.media.paths == (folder / "clip.mp4",)
    assert counts_of(report) == {
        ("", "video"): {"read": 2, "kept": 1, "dropped": 1},
        ("car", "point"): {"read": 2, "kept": 1, "dropped": 1},
        ("car", "box"): {"read": 2, "kept": 1, "dropped": 1},
    }
    write_jsonl([sample_of("elsewhere/clip.mp4")], path)
    (sample,), _ = read_labels("jsonl", path, folder)
    assert sample.media.paths == (folder / "clip.mp4",)
    write_jsonl([sample_of("clip.mp4"), sample_of("clip.mp4", "b")], path)
    monkeypatch.chdir(folder)
    assert len(read_labels("jsonl", path)[0]) == 2
    with pytest.raises(UserError, match="single file"):
        read_labels("jsonl", path, folder / "clip.mp4")


def test_jsonl_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "samples.jsonl"
    write_jsonl([sample_of("a.mp4")], path)
    before = path.read_bytes()
    bad = Sample("x", Media("video", (Path("a.mp4"),), None, math.inf), ())
    for samples, message in (
        ([bad], "sample x: a number is not finite"),
        ([], "no samples to write"),
        ([sample_of("a.mp4")] * 2, "several samples have the id 'a'"),
    ):
        with pytest.raises(UserError, match=message):
            write_jsonl(samples, path)
    with pytest.raises(UserError, match="cannot be written"):
        write_jsonl([sample_of("a.mp4")], tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

    def full_disk(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        write_jsonl([sample_of("b.mp4")], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def line(**changes: object) -> dict[str, object]:
    media = {"kind": "video", "paths": ["clip.mp4"]}
    record = {"format": "molmo-tune/1", "id": "a", "media": media, "annotations": []}
    return {key: value for key, value in {**record, **changes}.items() if value is not ...}


def seen(**changes: object) -> dict[str, object]:
    moment = {"time_s": 0.1, "point": [1, 2], **changes}
    moment = {key: value for key, value in moment.items() if value is not ...}
    return line(
        annotations=[{"kind": "track", "id": "0", "label": "car", "observations": [moment]}]
    )


BAD_LINES = [
    # line: the message after "file:2: "
    (line(format=...), "format is null; expected 'molmo-tune/1' on every line"),
    (line(format="molmo-tune/2"), "format is \"molmo-tune/2\"; expected 'molmo-tune/1'"),
    (line(anotations=[]), "sample has the unknown key 'anotations'; .*did you mean 'annotations'"),
    (line(id=...), "sample has no id; expected text"),
    (line(id=3), "sample.id is 3; expected text"),
    (line(media=...), "media is null; expected an object"),
    (line(media={"kind": "audio"}), 'media.kind is "audio"; expected image, video or text'),
    (line(media={"kind": "video", "paths": []}), "media.paths is \\[\\]; expected one for a video"),
    (
        line(media={"kind": "text", "size_wh": [0, 1]}),
        "media.size_wh is .*two integers of at least 1",
    ),
    (line(annotations={}), "sample.annotations is {}; expected a list"),
    (line(annotations=[{"kind": "mask"}]), 'annotation of kind "mask"'),
    (line(annotations=[7]), "annotation of kind null"),
    (seen(time_s=-1), "observation.time_s is -1; expected seconds, at least 0"),
    (seen(time_s="0:01"), "observation.time_s is"),
    (seen(time_s=...), "observation has no time_s"),
    (seen(time_s=True), "observation.time_s is true"),
    (seen(frame_index=1.5), "observation.frame_index is 1.5; expected an integer of at least -1"),
    (seen(point=...), "observation has no shape; expected one of point, box, polygon"),
    (seen(box=[0, 0, 1, 1]), "observation has point and box"),
    (seen(point=[1]), "observation.point is \\[1\\]; expected 2 numbers"),
    (seen(point=["1", "2"]), "observation.point is .*expected 2 numbers"),
    (seen(point=...) | seen(point=..., box=[5, 0, 1, 1]), "observation.box is .*left <= right"),
    (seen(occluded=1), "observation.occluded is 1; expected true or false"),
    (seen(ocluded=True), "observation has the unknown key 'ocluded'; .*did you mean 'occluded'"),
    (line(), "id 'a' is also used in line 1; expected unique ids"),
    ("[1]", "sample is \\[1\\]; expected an object"),
    ('{"format": "molmo-tune/1", "id": "a", "id": "b"}', "a key appears twice"),
    (json.dumps(seen(time_s=math.nan)), "NaN is not a number"),
    (json.dumps(seen(time_s=math.inf)), "Infinity is not a number"),
    (json.dumps(seen()).replace("0.1", "1e999"), "observation.time_s is"),
    (json.dumps(seen()).replace("0.1", "9" * 400), "observation.time_s is"),
    (json.dumps(line())[:-9], "not valid JSON"),
    ("[" * 200_000, "not valid JSON"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_jsonl_errors_name_the_line(tmp_path, bad, message):
    second = bad if isinstance(bad, str) else json.dumps(bad)
    path = write(tmp_path / "samples.jsonl", json.dumps(line()) + "\n" + second + "\n")
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}:2: {message}"):
        read_jsonl(path)


# ---------------------------------------------------------------- the list of formats, broken files


def test_recipe_formats_match_the_readers():
    assert list(READERS) == list(FORMAT_MODULES)


BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotations [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>
<annotations><track id="0" label="&c;"/></annotations>"""
FOREIGN = '<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotations><track id="1"/></annotations>'
IMAGES = '<annotations><image id="0" name="a.jpg"><box label="x"/></image></annotations>'
COCO = '{"images": [], "annotations": [], "categories": []}'
CVAT = cvat(track(box(1)))
STUDIO = json.dumps([task(region(key(1)))])
JSONL = json.dumps(line())

BROKEN = [
    # format, file name, content (None: no file), error
    ("cvat_video", "x.xml", None, "no such label file or folder"),
    ("cvat_video", "x.xml", "", "the file is empty"),
    ("cvat_video", "x.xml", " \n", "the file is empty"),
    ("cvat_video", "x.xml", CVAT[:-30], ":6: not valid XML"),
    ("cvat_video", "x.xml", CVAT.replace("utf-8", "utf-99"), ":1: not valid XML"),
    ("cvat_video", "x.xml", CVAT.replace("car", "c\x00r"), ":5: not valid XML"),
    ("cvat_video", "x.xml", CVAT.encode().replace(b"car", b"c\xe4r"), ":5: not valid XML"),
    ("cvat_video", "x.xml", BOMB, ":2: declares a document type or entities"),
    ("cvat_video", "x.xml", "<!DOCTYPE annotations>\n<annotations/>", ":1: declares a document"),
    ("cvat_video", "x.xml", FOREIGN, ":1: declares a document type or entities"),
    ("cvat_video", "x.xml", "<html><track id='1'/></html>", ":1: the root is <html>"),
    ("cvat_video", "x.xml", cvat(), "no sample could be read.*no usable annotations"),
    ("cvat_video", "x.xml", IMAGES, "looks like format cvat_images"),
    ("cvat_video", "x.xml", STUDIO, "looks like format label_studio_video; expected CVAT"),
    ("cvat_video", "x.xml", b"PK\x03\x04....", "looks like a zip archive; .*unpack it"),
    ("cvat_video", "x.xml", "frame,id,left\n1,2,3", ":1: not valid XML"),
    ("cvat_video", "x.xml", CVAT.replace("<name>x", "<source>no.mp4</source><name>x"), "'no.mp4'"),
    ("label_studio_video", "x.json", None, "no such label file or folder"),
    ("label_studio_video", "x.json", "", "the file is empty"),
    ("label_studio_video", "x.json", STUDIO.replace(",", ",\n")[:-40], ":[12]\\d: not valid JSON"),
    ("label_studio_video", "x.json", STUDIO.encode().replace(b"car", b"c\xe4r"), ":1: not UTF-8"),
    ("label_studio_video", "x.json", "[]", "no sample could be read.*holds no annotations"),
    ("label_studio_video", "x.json", "[1, 2]", "entry 1 is 1; expected a list of Label"),
    ("label_studio_video", "x.json", '"videorectangle"', "entry 1 is text"),
    ("label_studio_video", "x.json", "[" * 200_000, "JSON that cannot be read|not valid JSON"),
    ("label_studio_video", "x.json", "[" + "9" * 9000 + "]", "JSON that cannot be read"),
    ("label_studio_video", "x.json", '[{"annotations": 3}]', "task 1: found 3"),
    ("label_studio_video", "x.json", '[{"result": ["a"]}]', "found a list; expected a list of ann"),
    ("label_studio_video", "x.json", COCO, "looks like format coco"),
    ("label_studio_video", "x.json", CVAT, "looks like format cvat_video"),
    ("label_studio_video", "x.json", JSONL, "looks like format jsonl"),
    ("label_studio_video", "x.json", STUDIO.replace("clip.mp4", "no.mp4"), "no video '.*no.mp4'"),
    ("jsonl", "x.jsonl", None, "no such label file or folder"),
    ("jsonl", "x.jsonl", "", "the file is empty"),
    ("jsonl", "x.jsonl", "\n\n", "the file is empty"),
    ("jsonl", "x.jsonl", JSONL.encode().replace(b'"a"', b'"\xe4"'), ":1: not UTF-8"),
    ("jsonl", "x.jsonl", STUDIO, "looks like format label_studio_video"),
    ("jsonl", "x.jsonl", '{"id": 1}', ":1: format is null"),
    (
        "excel",
        "x.json",
        "{}",
        "unknown format 'excel'; expected a label format; run molmo-tune formats",
    ),
]


@pytest.mark.parametrize(("format", "name", "content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_broken_file_is_one_clear_error(folder, format, name, content, message):
    path = folder / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_labels(format, path)
    assert str(caught.value).startswith("format:" if format == "excel" else str(path))
    assert "\n" not in str(caught.value)


CLIMBING = ["../clip.mp4", "..\\clip.mp4", "a/../../clip.mp4", "/../clip.mp4"]


@pytest.mark.parametrize("name", CLIMBING)
def test_names_cannot_leave_the_media_folder(folder, name):
    inside = folder / "inside"
    inside.mkdir()
    meta = f"<meta><task><name>x</name></task><source>{name}</source></meta>"
    outside = "points outside the media folder"
    with pytest.raises(UserError, match=outside):
        read_cvat(folder, cvat(track(box(1)), meta=meta), inside)
    with pytest.raises(UserError, match=outside):
        read_studio(folder, [task(region(key(1)), video=name)], inside)
    source = f"/data/local-files/?d={name}"
    with pytest.raises(UserError, match=outside):
        read_studio(folder, [task(region(key(1)), video=source)], inside)
    write_jsonl([sample_of(name)], folder / "x.jsonl")
    with pytest.raises(UserError, match=outside):
        read_labels("jsonl", folder / "x.jsonl", inside)


def test_absolute_names_are_looked_up_by_their_last_part_only(folder):
    inside = folder / "inside"
    inside.mkdir()
    meta = f"<meta><task><name>x</name></task><source>{folder}/clip.mp4</source></meta>"
    with pytest.raises(UserError, match="no video"):
        read_cvat(folder, cvat(track(box(1)), meta=meta), inside)
    shutil.copy(folder / "clip.mp4", inside)
    (sample,), _ = read_cvat(folder, cvat(track(box(1)), meta=meta), inside)
    assert sample.media.paths == (inside / "clip.mp4",)


def test_ambiguous_or_unreadable_media_are_errors(folder, clip):
    for name in ("one", "two"):
        (folder / name).mkdir()
        shutil.move(shutil.copy(clip, folder), folder / name / "same.mp4")
    shutil.copy(clip, folder / "clip.mp4")
    meta = "<meta><source>{}</source></meta>"
    with pytest.raises(
        UserError, match=r"'same.mp4' matches several files: one/same.mp4 and two/same"
    ):
        read_cvat(folder, cvat(track(box(1)), meta=meta.format("same.mp4")))
    (sample,), _ = read_cvat(folder, cvat(track(box(1)), meta=meta.format("x/two/same.mp4")))
    assert sample.media.paths == (folder / "two" / "same.mp4",)
    write(folder / "broken.mp4", "not a video")
    with pytest.raises(UserError, match=r"video missing or unreadable .not a video that decodes"):
        read_cvat(folder, cvat(track(box(1)), meta=meta.format("broken.mp4")))
    with pytest.raises(UserError, match="no such file or folder; expected the media"):
        read_cvat(folder, cvat(track(box(1)), meta=meta.format("clip.mp4")), folder / "nowhere")


def test_labels_in_subfolders_are_named(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        write(tmp_path / part / "a.xml", CVAT)
    found = rf"unknown label format, but cvat_video in {tmp_path / 'train'}; .*molmo-tune init"
    with pytest.raises(UserError, match=found):
        detect_format(tmp_path)


def test_missing_media_error_asks_for_the_media_folder(folder):
    (folder / "none").mkdir()
    write(folder / "a.xml", CVAT)
    with pytest.raises(UserError, match=r"video missing.*give the media folder: --media"):
        read_labels("cvat_video", folder / "a.xml", folder / "none")


def test_formats_are_detected(folder):
    paths = {
        "cvat_video": write(folder / "a.xml", CVAT),
        "label_studio_video": write(folder / "b.json", STUDIO),
        "jsonl": write(folder / "c.jsonl", JSONL),
    }
    for name, path in paths.items():
        assert detect_format(path) == name
        inside = folder / f"only {name}"
        inside.mkdir()
        shutil.copy(path, inside)
        assert detect_format(inside) == name
    with pytest.raises(UserError, match="could be cvat_video or jsonl or label_studio_video"):
        detect_format(folder)
    with pytest.raises(
        UserError, match="looks like COCO JSON with videos; expected a supported format"
    ):
        detect_format(write(folder / "d.json", COCO.replace("{", '{"videos": [{}], ', 1)))
    with pytest.raises(
        UserError, match="unknown label format; expected a supported format; run molmo-tune formats"
    ):
        detect_format(folder / "clip.mp4")
    with pytest.raises(UserError, match="no such label file"):
        detect_format(folder / "nothing")
    with pytest.raises(
        UserError, match=r"a YOLO data.yaml; .*give the folder that contains its labels"
    ):
        detect_format(write(folder / "data.yaml", "train: images/train\nnames: [a, b]\n"))
    (folder / "bare").mkdir()
    with pytest.raises(UserError, match=r"no \*.xml in this folder"):
        read_labels("cvat_video", folder / "bare")


def test_report_adds_up_prints_and_is_json(folder):
    tracks = [
        track(*(box(n, 150) for n in range(9)), box(30, 150)),
        track(box(1), label="a van", id=1),
    ]
    _, report = read_cvat(folder, cvat(*tracks))
    counts_of(report)
    assert report.num_dropped == sum(f.count for f in report.dropped) == 10
    assert [(f.count, len(f.places)) for f in report.dropped] == [(9, 3), (1, 1)]
    again = json.loads(json.dumps(report.to_json()))
    assert again["num_dropped"] == 10
    assert [c["label"] for c in again["counts"]] == ["", "car", "a van"]
    lines = report.table().splitlines()
    assert lines[0].endswith("labels.xml (cvat_video): 1 samples, 10 dropped")
    assert [row.split()[-7:] for row in lines[2:5]] == [
        ["1", "1", "0", "0", "0", "0", "0"],
        ["10", "0", "0", "0", "0", "0", "10"],
        ["1", "1", "0", "0", "0", "0", "0"],
    ]
    path = folder / "labels.xml"
    places = ", ".join(f"{path}:{line}" for line in (6, 7, 8))
    assert lines[5:] == [
        f"dropped: 9 × car box: entirely outside the frame ({places}, …)",
        f"dropped: 1 × car box: frame outside the video ({path}:15)",
        *lines[7:],
    ]
    with pytest.raises(AttributeError):
        report.num_samples = 3


def test_report_places_are_relative_to_the_source(folder):
    source = folder / "labels"
    tally = Tally()
    tally.of("car", "box").drop("cut off", f"{source / 'a.xml'}:6")
    tally.of("car", "box").drop("cut off", f"{folder / 'b.xml'}:7")
    lines = tally.report("cvat_video", source, 0).table().splitlines()
    assert lines[0].startswith(f"{source} (cvat_video)")
    assert lines[-1] == f"dropped: 2 × car box: cut off (a.xml:6, {folder / 'b.xml'}:7)"
