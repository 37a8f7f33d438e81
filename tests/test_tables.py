"""Tables as datasets store them: rows with several objects, embedded images and numbered classes.

The same two images with three boxes are written in every way that ``datasets`` offers, and must
give the same samples. Nested JSONL needs no library, Parquet and Arrow files need pyarrow, and
files saved by ``datasets`` need ``datasets``.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from molmo_tune.cli import main
from molmo_tune.errors import UserError
from molmo_tune.labels.formats.table.table import TableLayout, layout_of
from molmo_tune.labels.read import read_labels
from molmo_tune.recipe.sections import Columns, DataSource

SIZE = (20, 10)
NAMES = ("cat", "dog")
BOXES = {"a.png": [(0, [2, 3, 4, 5]), (1, [1, 1, 4, 4])], "b.png": [(1, [0, 0, 9, 9])], "c.png": []}
NESTED = TableLayout("image", "objects.category", ("objects.bbox",), "pixel", "xywh")


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", SIZE, (number, 0, 0)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate(BOXES):
        (folder / name).write_bytes(picture(number))
    return folder


def rows(named: bool = True) -> list[dict[str, Any]]:
    """Return an object of lists, the storage of a Sequence of structs."""
    return [
        {
            "image": name,
            "objects": {
                "category": [NAMES[kind] if named else kind for kind, _ in boxes],
                "bbox": [box for _, box in boxes],
            },
        }
        for name, boxes in BOXES.items()
    ]


def as_lists(row: dict[str, Any]) -> dict[str, Any]:
    """Return the same objects as a list."""
    objects = row["objects"]
    pairs = zip(objects["category"], objects["bbox"], strict=True)
    return {**row, "objects": [{"category": kind, "bbox": box} for kind, box in pairs]}


def said(samples) -> list[list[tuple[str, tuple[float, ...]]]]:
    return [[(n.label, n.shape.xyxy_px) for n in sample.annotations] for sample in samples]


EXPECTED = [[("cat", (2, 3, 6, 8)), ("dog", (1, 1, 5, 5))], [("dog", (0, 0, 9, 9))]]


def write_jsonl(path: Path, table: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


@pytest.mark.parametrize("shape", [lambda row: row, as_lists])
def test_nested_rows_of_jsonl(tmp_path, pictures, shape):
    path = write_jsonl(tmp_path / "x.jsonl", [shape(row) for row in rows()])
    samples, report = read_labels("table", path, pictures, NESTED)
    assert said(samples) == EXPECTED
    assert {f.reason: f.count for f in report.skipped} == {
        "empty row: no object": 1,
        "nothing annotated": 1,
    }
    assert report.num_dropped == 0


ONE_EACH = [
    # image and label next to the shape columns, layout: boxes
    (
        {"box": [[2, 3, 4, 5], [1, 1, 4, 4]], "label": "cat"},
        ("label", ("box",)),
        [("cat", (2, 3, 6, 8)), ("cat", (1, 1, 5, 5))],
    ),
    ({"box": [2, 3, 4, 5], "label": "cat"}, ("label", ("box",)), [("cat", (2, 3, 6, 8))]),
    (
        {"x": [2, 1], "y": [3, 1], "w": [4, 4], "h": [5, 4], "label": ["cat", "dog"]},
        ("label", ("x", "y", "w", "h")),
        EXPECTED[0],
    ),
    ({"x": 2, "y": 3, "w": 4, "h": 5, "label": 7}, ("label", ("x", "y", "w", "h")), [("7", None)]),
    ({"a": {"b": {"c": [2, 3, 4, 5]}}, "l": "cat"}, ("l", ("a.b.c",)), [("cat", (2, 3, 6, 8))]),
]


@pytest.mark.parametrize(("row", "layout", "expected"), ONE_EACH, ids=range(len(ONE_EACH)))
def test_rows_of_all_shapes(tmp_path, pictures, row, layout, expected):
    path = write_jsonl(tmp_path / "x.jsonl", [{"image": "a.png", **row}])
    samples, _ = read_labels(
        "table", path, pictures, TableLayout("image", *layout, "pixel", "xywh")
    )
    assert said(samples) == [[(label, box or (2, 3, 6, 8)) for label, box in expected]]


def test_one_column_of_points(tmp_path, pictures):
    row = {"image": "a.png", "label": ["cat", "dog"], "at": [[50, 50], [10, 20]]}
    path = write_jsonl(tmp_path / "x.jsonl", [row])
    columns = Columns(image="image", label="label", point=("at",))
    layout = layout_of(DataSource(format="table", path=path, columns=columns, units="percent"))
    (sample,), _ = read_labels("table", path, pictures, layout)
    assert [n.shape.xy_px for n in sample.annotations] == [(10, 5), (2, 2)]


BAD_ROWS = [
    # objects of a row: message
    ({"category": ["cat"], "bbox": []}, "lists of 0 and 1 entries in a row"),
    ({"category": ["cat"]}, "no column 'objects.bbox'"),
    ([{"category": "cat"}], "no column 'objects.bbox'"),
    (None, "no sample could be read.*empty row: no object"),
    ({"category": ["cat"], "bbox": [[1, 2, 3]]}, "coordinate missing or not a number"),
    ({"category": ["cat"], "bbox": [3]}, "coordinate missing or not a number"),
    ({"category": ["cat"], "bbox": [["1", True, 3, 4]]}, "coordinate missing"),
    ({"category": ["cat"], "bbox": [[1, 2, -3, 4]]}, "negative width or height"),
    ({"category": ["cat"], "bbox": [[1, 2, float("nan"), 4]]}, "missing or not a number"),
    ({"category": [None], "bbox": [[1, 2, 3, 4]]}, "no class label"),
]


@pytest.mark.parametrize(("objects", "message"), BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_invalid_nested_rows(tmp_path, pictures, objects, message):
    path = write_jsonl(tmp_path / "x.jsonl", [{"image": "a.png", "objects": objects}])
    with pytest.raises(UserError, match=message):
        read_labels("table", path, pictures, NESTED)


def test_missing_column(tmp_path, pictures):
    path = write_jsonl(tmp_path / "x.jsonl", rows())
    layout = TableLayout("image", "things.category", ("objects.bbox",), "pixel")
    with pytest.raises(UserError, match=r"no column 'things\.category'"):
        read_labels("table", path, pictures, layout)


# ------------------------------------------------------------------------ as `datasets` stores them


def features(datasets: Any) -> Any:
    kinds = datasets.ClassLabel(names=list(NAMES))
    boxes = datasets.Sequence(datasets.Value("float32"), length=4)
    objects = datasets.Sequence({"category": kinds, "bbox": boxes})
    return datasets.Features({"image": datasets.Image(), "objects": objects})


@pytest.fixture
def written(tmp_path: Path, pictures: Path, request: pytest.FixtureRequest) -> Path:
    """Write images and class numbers into rows, to a file or folder of the given kind."""
    datasets = pytest.importorskip("datasets")
    table = rows(named=False)
    for row in table:
        row["image"] = {"bytes": (pictures / row["image"]).read_bytes(), "path": row["image"]}
    data = datasets.Dataset.from_list(table, features=features(datasets))
    match request.param:
        case "parquet":
            data.to_parquet(tmp_path / "x.parquet")
            return tmp_path / "x.parquet"
        case "folder of parquet":
            (tmp_path / "data").mkdir()
            for number in range(3):
                part = data.select([number])
                part.to_parquet(tmp_path / "data" / f"train-0000{number}-of-00003.parquet")
            return tmp_path / "data"
        case "split":
            datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "x")
            return tmp_path / "x" / "train"
    data.save_to_disk(tmp_path / "x")
    return tmp_path / "x"


KINDS = ["parquet", "folder of parquet", "saved", "split"]


@pytest.mark.parametrize("written", KINDS, indirect=True)
def test_datasets_with_embedded_images(tmp_path, written):
    media = tmp_path / "out"
    samples, report = read_labels("table", written, media, NESTED)
    assert said(samples) == EXPECTED
    assert report.num_dropped == 0
    files = sorted(media.iterdir())
    assert [file.suffix for file in files] == [".png"] * 3
    assert {file.read_bytes() for file in files} == {picture(n) for n in range(3)}
    times = [file.stat().st_mtime_ns for file in files]
    again, _ = read_labels("table", written, media, NESTED)
    assert [s.media.paths for s in again] == [s.media.paths for s in samples]
    assert [file.stat().st_mtime_ns for file in sorted(media.iterdir())] == times


@pytest.mark.parametrize("written", ["parquet"], indirect=True)
def test_embedded_images_need_a_given_media_folder(tmp_path, written, pictures):
    with pytest.raises(
        UserError, match=r"row 1: the rows contain the images themselves; give a media folder"
    ):
        read_labels("table", written, None, NESTED)
    with pytest.raises(UserError, match="the rows contain the images themselves"):
        read_labels("table", written, pictures / "a.png", NESTED)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written|no such file"):
        read_labels("table", written, tmp_path / "file" / "below", NESTED)


@pytest.mark.parametrize("written", ["saved"], indirect=True)
def test_convert_reads_a_dataset(tmp_path, written):
    columns = "image: image, label: objects.category, box: [objects.bbox]"
    out = tmp_path / "train.jsonl"
    line = ["convert", str(written), "--columns", columns, "--units", "pixel", "--box", "xywh"]
    assert main([*line, "--media", str(tmp_path / "out"), "--out", str(out)]) == 0
    kept = [json.loads(text) for text in out.read_text().splitlines()]
    assert [[n["label"] for n in record["annotations"]] for record in kept] == [
        ["cat", "dog"],
        ["dog"],
    ]
    assert all(Path(record["media"]["paths"][0]).is_file() for record in kept)


def on_hub(monkeypatch: pytest.MonkeyPatch, file: Path) -> list[tuple[Any, ...]]:
    """A local file, streamed by `datasets`, replaces the Hub."""
    datasets = pytest.importorskip("datasets")
    load, asked = datasets.load_dataset, list[tuple[Any, ...]]()

    def load_dataset(name: str, config: str | None, split: str, streaming: bool) -> Any:
        asked.append((name, config, split, streaming))
        return load("parquet", data_files={split: str(file)}, split=split, streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("written", ["parquet"], indirect=True)
def test_hub_dataset_is_streamed(tmp_path, written, monkeypatch):
    asked = on_hub(monkeypatch, written)
    for address, expected in (
        ("hf://somebody/cats", ("somebody/cats", None, "train", True)),
        ("hf://somebody/cats/small:test", ("somebody/cats", "small", "test", True)),
    ):
        samples, report = read_labels("table", Path(address), tmp_path / "out", NESTED)
        assert said(samples) == EXPECTED
        assert asked.pop() == expected
        assert report.num_dropped == 0
    with pytest.raises(UserError, match="row 1: the rows contain the images themselves"):
        read_labels("table", Path("hf://somebody/cats"), None, NESTED)


def test_hub_failure_is_one_clear_error(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="not a dataset URL"):
        read_labels("table", Path("hf://cats"), tmp_path, NESTED)
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no\nconnection")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"hf://a/b: cannot be read \(ConnectionError: no conn"):
        read_labels("table", Path("hf://a/b"), tmp_path, NESTED)


def test_hub_is_for_plain_tables_only(tmp_path):
    with pytest.raises(UserError, match="no such label file or folder"):
        read_labels("coco", Path("hf://a/b"), tmp_path)


def test_bytes_that_are_not_an_image_are_dropped(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = [
        {"image": content, "label": "cat", "box": [1.0, 1.0, 2.0, 2.0]}
        for content in (picture(1), b"not a picture", os.urandom(99))
    ]
    parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "x.parquet")
    layout = TableLayout("image", "label", ("box",), "pixel", "xywh")
    samples, report = read_labels("table", tmp_path / "x.parquet", tmp_path / "out", layout)
    assert said(samples) == [[("cat", (1, 1, 3, 3))]]
    assert sum(f.count for f in report.dropped if f.label == "cat") == 2


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" * 9, b"\xff" * 64, b"ARROW1\0\0", b"{}"])
def test_invalid_arrow_file_is_one_clear_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"not a readable|need pyarrow") as caught:
        read_labels("table", tmp_path / name, layout=NESTED)
    assert "\n" not in str(caught.value)


def test_csv_needs_a_column_per_number(tmp_path: Path) -> None:
    """A single column with a list needs a file type that has lists."""
    (tmp_path / "boxes.csv").write_text("file,class,x1\na.png,cat,3\n")
    layout = TableLayout("file", "class", ("x1",), "pixel")
    with pytest.raises(UserError, match=r"1 columns for 4 numbers; expected 4 columns"):
        read_labels("table", tmp_path / "boxes.csv", tmp_path, layout)
