"""The table of readers, walked: each has a golden test, and each is broken in seven ways.

Empty, truncated, in a foreign encoding, and without its media: that is done to every golden input
alike. What a wrong type, a negative size and NaN are depends on the format: `MALFORMED` holds the
words to exchange and what the user is told. A format that is missing from a table fails here.
"""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmo_tune.errors import UserError
from molmo_tune.labels.read import READERS, read_labels
from tests import test_readers_video
from tests.label_inputs import TINY
from tests.test_readers_video import CASES, make_video, put

KINDS = ("wrong type", "negative size", "not a number")
# golden input → golden test where it is no file that can be written here
BY_OBJECTS = {"sleap": "test_sleap_instances_become_tracks_of_named_points"}

Exchange = tuple[str | None, str | bytes, str]


def boxes(old: str, *new: str, negative: str = "negative width or height") -> list[Exchange]:
    """Three exchanges of numbers, with the reasons that most formats give."""
    bad = "coordinate missing or not a number"
    return list(zip([old] * 3, new, [bad, negative, bad], strict=True))


def same(old: str, *new: str, reason: str) -> list[Exchange]:
    return [(old, word, reason) for word in new]


def colored() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (100, 50)).save(stream, "png")
    return stream.getvalue()


def pickled(points: object, occluded: object = None) -> bytes:
    hidden = np.zeros((1, 20), bool) if occluded is None else occluded
    return pickle.dumps({"clip": {"points": points, "occluded": hidden}})


RUNS = "mask run lengths do not match the video size"
PLACES = np.full((1, 20, 2), 0.5, np.float32)
NO_FRAME = "frame number missing or not an integer"
# wrong type, negative size, not a number: what to exchange for what, and the reason that is given.
# None instead of words exchanges the whole file.
MALFORMED: dict[str, list[Exchange]] = {
    "coco": boxes("[2, 3, 4, 5]", '["2", 3, 4, 5]', "[2, 3, -4, 5]", "[2, 3, NaN, 5]"),
    "yolo": boxes("0 0.2 0.55 0.2", "0 x 0.55 0.2", "0 0.2 0.55 -0.2", "0 nan 0.55 0.2"),
    "cvat_images": boxes(
        'width="3" height="2"',
        'width="x" height="2"',
        'width="-3" height="2"',
        'width="nan" height="2"',
        negative="do not cover",
    ),
    "label_studio_image": boxes(
        '"width": 20', '"width": "20"', '"width": -20', '"width": NaN', negative="negative"
    ),
    "labelme": boxes(
        "[[1, 2], [3, 3]]",
        '[["1", 2], [3, 3]]',
        "[[-1, 2], [3, 3]]",
        "[[NaN, 2], [3, 3]]",
        negative="not a PNG that fits",
    ),
    "pascal_voc": boxes(
        "<xmax>6<", "<xmax>six<", "<xmax>-6<", "<xmax>nan<", negative="swapped corners"
    ),
    "open_images": boxes(
        "0.1,0.3,0.3,0.8",
        "x,0.3,0.3,0.8",
        "0.3,0.1,0.3,0.8",
        "nan,0.3,0.3,0.8",
        negative="zero area",
    ),
    "dota": boxes(
        "1 1 5 1 5 5 1 5",
        "x 1 5 1 5 5 1 5",
        "-1 -1 -5 -1 -5 -5 -1 -5",
        "nan 1 5 1 5 5 1 5",
        negative="entirely outside",
    ),
    "via": boxes('"width": 4', '"width": "4"', '"width": -4', '"width": NaN'),
    "createml": boxes('"width": 4', '"width": "4"', '"width": -4', '"width": NaN'),
    "roboflow_hosted": boxes('"width": 4', '"width": "x"', '"width": -4', '"width": NaN'),
    "table": boxes(
        "cat,10,30,30", "cat,x,30,30", "cat,30,30,10", "cat,nan,30,30", negative="swapped corners"
    ),
    "pixmo_points": boxes(
        '{"x": 20.0', '{"x": "20"', '{"x": -20.0', '{"x": NaN', negative="moved to its edge"
    ),
    "pixmo_count": boxes("[4.0, 5]", '["4", 5]', "[-4.0, 5]", "[NaN, 5]", negative="outside"),
    "cvat_video": boxes(
        'xbr="30"', 'xbr="x"', 'xbr="-30"', 'xbr="nan"', negative="box corners reordered"
    ),
    "cvat_tags": same('"frame_000002"', '"x"', '"frame_-2x"', '"frame_nan"', reason=NO_FRAME),
    "jsonl": [
        ("[1, 2, 3, 4]", '["1", 2, 3, 4]', "expected 4 numbers"),
        ("[1, 2, 3, 4]", "[3, 2, 1, 4]", "left <= right"),
        ("[1, 2, 3, 4]", "[1, 2, NaN, 4]", "NaN is not a number"),
    ],
    "mot": boxes("1,1,11,21,20", "1,1,11,21,x", "1,1,11,21,-20", "1,1,11,21,nan"),
    "kitti_tracking": boxes("10.5 20 30", "x 20 30", "10.5 20 3", "nan 20 30"),
    **{
        name: same("1001 1 50 100", "1001 1 x 100", "1001 1 -50 100", "1001 1 nan 100", reason=RUNS)
        for name in ("kitti_mots", "mots_challenge")
    },
    "sav": same('"size": [50,', '"size": ["50",', '"size": [-50,', '"size": [NaN,', reason=RUNS),
    "mask_folder": [
        (None, colored(), "not an image of object IDs"),
        (None, b"\x89PNG" + colored()[4:40], "not an image of object IDs"),
        (None, colored()[:-30], "not an image of object IDs"),
    ],
    "expressions": [
        ('"frames": ["00002", "00004"]', '"frames": 3', "no list of frames"),
        ('"obj_id": "1"', '"obj_id": -1', "no masks of this object"),
        ('"exp": "both"', '"exp": NaN', "an empty expression"),
    ],
    "youtube_vis": boxes("[1, 2, 3, 4]", '["1", 2, 3, 4]', "[1, 2, -3, 4]", "[1, 2, NaN, 4]"),
    "tao": boxes("[12, 14, 20,", '["12", 14, 20,', "[12, 14, -20,", "[12, 14, NaN,"),
    "scalabel": boxes('"x2": 20', '"x2": "20"', '"x2": 5', '"x2": NaN'),
    "sot": boxes("10,10,20,20", "x,10,20,20", "10,10,-20,20", "nan,10,20,20"),
    "label_studio_video": boxes(
        '"width": 10', '"width": "x"', '"width": -10', '"width": NaN', negative="negative"
    ),
    "cvat_rest": boxes(
        '0, "points": [10, 10, 20, 30]',
        '0, "points": ["10", 10, 20, 30]',
        '0, "points": [20, 10, 10, 30]',
        '0, "points": [NaN, 10, 20, 30]',
        negative="box corners reordered",
    ),
    "activitynet": boxes(
        "[0.25, 1.5]", '["0.25", 1.5]', "[1.5, 0.25]", "[NaN, 1.5]", negative="ends before"
    ),
    "ava": boxes("0.1,0.2,0.3", "x,0.2,0.3", "0.1,0.2,-0.3", "nan,0.2,0.3"),
    "soccernet": boxes('"1250"', '"x"', '"-1250"', '"NaN"', negative="outside the video"),
    "elan": [
        ('TIME_VALUE="200"', 'TIME_VALUE="x"', "time slots without a value"),
        ('TIME_VALUE="200"', 'TIME_VALUE="-200"', "event outside the video"),
        ('TIME_VALUE="200"', 'TIME_VALUE="nan"', "time slots without a value"),
    ],
    "ultralytics_track": boxes("0.15 0.4 0.1", "0.15 0.4 x", "0.15 0.4 -0.1", "0.15 0.4 nan"),
    "supervision": boxes("10,10,20,30", "x,10,20,30", "20,10,10,30", "nan,10,20,30"),
    "deeplabcut": boxes(
        "1.5,2,30,40", "x,2,30,40", "-1,-2,-3,-4", "nan,2,30,40", negative="outside"
    ),
    "tapvid_trusted": [
        (None, pickled(["0.5", 0.5]), "no arrays points and occluded"),
        (None, pickled(-PLACES), "entirely outside the frame"),
        (None, pickled(PLACES * np.nan), "coordinate missing or not a number"),
    ],
    "molmo2_video_point": boxes(
        '{"x": 50,', '{"x": "50",', '{"x": -50,', '{"x": NaN,', negative="outside 0 to 100%"
    ),
    "molmo2_video_track": boxes(
        "[10.5, 20]", '["10.5", 20]', "[-10.5, 20]", "[NaN, 20]", negative="entirely outside"
    ),
    "track_instruction": boxes(
        "[10, 20]", '["10", 20]', "[-10, 20]", "[NaN, 20]", negative="entirely outside"
    ),
}


def test_every_format_has_a_golden_test():
    written = {*TINY, *CASES}
    for name, test in BY_OBJECTS.items():
        assert callable(getattr(test_readers_video, test))
        assert name not in written
    assert written | set(BY_OBJECTS) == set(READERS)


def test_every_format_is_in_the_table_of_the_malformed():
    assert set(MALFORMED) | set(BY_OBJECTS) == set(READERS)
    assert {len(rows) for rows in MALFORMED.values()} == {len(KINDS)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4")


def write(name: str, folder: Path, clip: Path) -> tuple[Path, Path, Path | None]:
    """The golden input: what to read, the label file, the media."""
    if name in TINY:
        path, media = TINY[name].write(folder)
        return path, folder / next(iter(TINY[name].files)), media
    shutil.copy(clip, folder / "clip.mp4")
    path = put(CASES[name], folder)
    return path, path, folder


def read(name: str, path: Path, media: Path | None):
    return read_labels(name, path, media, **(TINY[name].options if name in TINY else {}))


def kept(report) -> int:
    return sum(count.kept for count in report.counts)


def told(report, reason: str) -> int:
    """How often a reason was given."""
    found = (*report.dropped, *report.corrected)
    return sum(finding.count for finding in found if reason in finding.reason)


def read_or_told(name: str, path: Path, media: Path | None):
    """What `read` gives, or the message of its error, which is one line."""
    try:
        return read(name, path, media)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_values_are_told(tmp_path, clip, name, kind):
    path, file, media = write(name, tmp_path, clip)
    _, whole = read(name, path, media)
    old, new, reason = MALFORMED[name][KINDS.index(kind)]
    if isinstance(new, bytes):
        file.write_bytes(new)
    else:
        text = file.read_text()
        assert old is not None
        assert old in text
        file.write_text(text.replace(old, new))
    result = read_or_told(name, path, media)
    if isinstance(result, str):
        assert reason in result
        return
    assert told(result[1], reason) > told(whole, reason)
    assert kept(result[1]) <= kept(whole)


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "blank": lambda data: b" \n\t\n",
    "cut at a sixth": lambda data: data[: len(data) // 6],
    "cut at a half": lambda data: data[: len(data) // 2],
    "another encoding": lambda data: "å".encode("latin-1") * 3 + data,
    "a letter of another encoding": lambda data: (
        data[: len(data) // 2] + b"\xe5" + data[len(data) // 2 :]
    ),
    "two bytes a letter": lambda data: data.decode("latin-1").encode("utf-16-le"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MALFORMED)
def test_damaged_files_are_told(tmp_path, clip, name, way):
    path, file, media = write(name, tmp_path, clip)
    samples, whole = read(name, path, media)
    file.write_bytes(WAYS[way](file.read_bytes()))
    result = read_or_told(name, path, media)
    if isinstance(result, str):
        return
    if way == "two bytes a letter":  # which XML knows by itself
        assert result[0] == samples
    else:  # a file of lines that was cut is one of fewer lines
        assert way.startswith("cut")
        assert num_read(result[1]) < num_read(whole)


def num_read(report) -> int:
    return sum(count.read for count in report.counts)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_byte_order_mark_changes_nothing_or_is_an_error(tmp_path, clip, name):
    path, file, media = write(name, tmp_path, clip)
    samples, _ = read(name, path, media)
    for encoded in ("utf-8-sig", "utf-16"):
        _, file, _ = write(name, tmp_path, clip)
        try:
            text = file.read_bytes().decode()
        except UnicodeDecodeError:
            return  # no text
        file.write_bytes(text.encode(encoded))
        result = read_or_told(name, path, media)
        assert isinstance(result, str) or result[0] == samples


@pytest.mark.parametrize("name", MALFORMED)
def test_missing_media_are_told(tmp_path, clip, name):
    path, _, _ = write(name, tmp_path, clip)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"missing|no such|no video|no file"):
        read(name, path, tmp_path / "nothing")
