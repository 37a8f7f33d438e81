"""The README's command for plain tables, verbatim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from molmo_tune.cli import main

LINE = ["boxes.csv", "--units", "pixel", "--out", "train.jsonl", "--columns"]
COLUMNS = "image: file, label: class, box: [x1, y1, x2, y2]"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 10)).save("a.png")
    Path("boxes.csv").write_text("file,class,x1,y1,x2,y2\na.png,cat,2,3,6,8\na.png,dog,1,1,5,5\n")
    return tmp_path


def test_convert_reads_a_table_with_columns_from_the_command_line(table: Path) -> None:
    assert main(["convert", *LINE, COLUMNS]) == 0
    (line,) = Path("train.jsonl").read_text().splitlines()
    shapes = [(one["label"], one["box"]) for one in json.loads(line)["annotations"]]
    assert shapes == [("cat", [2, 3, 6, 8]), ("dog", [1, 1, 5, 5])]


@pytest.mark.parametrize("columns", ["image: [file", "picture: file", "image: absent"])
def test_invalid_columns_are_refused(
    table: Path, columns: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", *LINE, columns]) == 1
    assert capsys.readouterr().err.strip()
    assert not Path("train.jsonl").exists()
