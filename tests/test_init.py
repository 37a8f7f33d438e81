"""`molmo-tune init`: what it writes is really checked and trained, two steps on the tiny base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from molmo_tune.cli import main
from tests.label_inputs import TINY, coco

FEW = ["trainer.max_steps=2", "trainer.accumulate_grad_batches=1", "trainer.precision=32-true"]
QUICK = [*FEW, "data.num_workers=0", "video.max_frames=4", "optim.warmup_steps=1"]


def start(folder: Path, to: Path, *more: str) -> int:
    return main(["init", str(folder), "--to", str(to), "--model", "tiny", *more])


def run_recipe(to: Path) -> dict:
    """Check it and train two steps; the recipe as written."""
    recipe = to / "recipe.yaml"
    assert len(recipe.read_text().splitlines()) < 60
    sets = [word for setting in QUICK for word in ("--set", setting)]
    assert main(["check", str(recipe), *sets]) == 0
    assert main(["train", str(recipe), *sets]) == 0
    assert any((to / "run").rglob("step*")), "no checkpoint"
    return yaml.safe_load(recipe.read_text())


def mot(pond: Path, folder: Path) -> None:
    for number, clip in enumerate(sorted((pond / "clips").iterdir())):
        sequence = folder / f"seq{number}"
        (sequence / "gt").mkdir(parents=True)
        rows = [f"{frame},1,{10 + frame},20,20,20,1,1,1" for frame in range(1, 9)]
        (sequence / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
        shutil.copy(clip, sequence / f"seq{number}{clip.suffix}")


def studio_video(pond: Path, folder: Path) -> None:
    folder.mkdir()
    tasks = []
    for number, clip in enumerate(sorted((pond / "clips").iterdir()), 1):
        shutil.copy(clip, folder / clip.name)
        keys = [
            {"frame": frame, "enabled": True, "rotation": 0, "x": 10 + frame, "y": 20}
            | {"width": 20, "height": 20, "time": frame / 10}
            for frame in (1, 8)
        ]
        value = {"sequence": keys, "labels": ["frog"], "framesCount": 8, "duration": 0.8}
        result = {"id": "r", "type": "videorectangle", "from_name": "b", "to_name": "v"}
        data = {"video": f"/data/upload/1/1a2b3c4d-{clip.name}"}
        one = {"id": number, "data": data, "annotations": [{"result": [result | {"value": value}]}]}
        tasks.append(one)
    (folder / "export.json").write_text(json.dumps(tasks))


def yolo(folder: Path) -> None:
    for part in ("train", "val"):
        TINY["yolo"].write(folder / part)


def coco_parts(folder: Path) -> None:
    for part in ("train", "val"):
        TINY["coco"].write(folder / part)
        (folder / part / "x.json").write_text(json.dumps(coco({"bbox": [2, 3, 4, 5]})))


@pytest.mark.parametrize("name", ["cvat_video", "label_studio_video", "mot", "coco", "yolo"])
def test_what_init_writes_runs(name: str, pond: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    match name:
        case "cvat_video":
            shutil.copytree(pond, folder)
        case "label_studio_video":
            studio_video(pond, folder)
        case "mot":
            mot(pond, folder)
        case "coco":
            coco_parts(folder)
        case _:
            yolo(folder)
    to = tmp_path / "to"
    assert start(folder, to) == 0
    recipe = run_recipe(to)
    own_parts = name in ("coco", "yolo")
    for part in ("train", "val"):
        (source,) = recipe["data"][part]
        assert source["labels"] == (name if own_parts else "jsonl")
    assert recipe["data"]["train"][0]["path"] != recipe["data"]["val"][0]["path"]


def test_nothing_and_several_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert start(tmp_path / "empty", tmp_path / "to") == 1
    assert "no label format that is known" in capsys.readouterr().err
    coco_parts(tmp_path / "both")
    TINY["pascal_voc"].write(tmp_path / "both" / "voc")
    assert start(tmp_path / "both", tmp_path / "to") == 1
    told = capsys.readouterr().err
    assert "coco in" in told
    assert "pascal_voc in" in told
    assert "--labels" in told
    assert not (tmp_path / "to").exists()
    assert start(tmp_path / "both", tmp_path / "to", "--labels", "coco") == 0


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_parts(tmp_path / "data")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "recipe.yaml").write_text("mine")
    assert start(tmp_path / "data", tmp_path / "to") == 1
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["recipe.yaml"]
