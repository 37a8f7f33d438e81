"""`molmo-tune init`: its recipes pass the check and train, two steps on the tiny base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from molmo_tune.cli import main
from molmo_tune.commands import init_sources
from molmo_tune.commands.init_sources import hold_out
from molmo_tune.commands.init_templates import fitting_templates
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.sample import (
    Dialogue,
    Instance,
    Media,
    Observation,
    Point,
    Sample,
    Span,
    Track,
)
from molmo_tune.labels.survey import survey
from molmo_tune.templates.template import load_template
from tests.label_inputs import coco
from tests.labels.cases import BASIC

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
        BASIC["yolo"].write(folder / part)
    other_pictures(folder / "val")


def coco_parts(folder: Path) -> None:
    for part in ("train", "val"):
        BASIC["coco"].write(folder / part)
        (folder / part / "x.json").write_text(json.dumps(coco({"bbox": [2, 3, 4, 5]})))
    other_pictures(folder / "val")


def other_pictures(folder: Path) -> None:
    """Of the same size: what is scored must not be trained on."""
    for path in folder.rglob("*.png"):
        size = Image.open(path).size
        Image.effect_noise(size, 60).convert("RGB").save(path)


@pytest.mark.parametrize("name", ["cvat_video", "label_studio_video", "mot", "coco", "yolo"])
def test_written_recipes_run(name: str, pond: Path, tmp_path: Path) -> None:
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
    assert (recipe["trainer"]["max_steps"], recipe["optim"]["warmup_steps"]) == (100, 10)
    own_parts = name in ("coco", "yolo")
    for part in ("train", "val"):
        (source,) = recipe["data"][part]
        assert source["format"] == (name if own_parts else "jsonl")
    assert recipe["data"]["train"][0]["path"] != recipe["data"]["val"][0]["path"]


def test_no_format_and_several_formats_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert start(tmp_path / "empty", tmp_path / "to") == 1
    assert "no known label format" in capsys.readouterr().err
    coco_parts(tmp_path / "both")
    BASIC["pascal_voc"].write(tmp_path / "both" / "voc")
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
    assert "already exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["recipe.yaml"]


def masks(folder: Path, rate: str) -> None:
    """Two videos as folders of pictures, with a mask for each picture, as DAVIS has them."""
    for clip in ("swan", "goat"):
        for part in ("JPEGImages", "Annotations"):
            (folder / part / clip).mkdir(parents=True)
        for number in range(8):
            picture = Image.new("RGB", (80, 60), (10 * number, 80, 120))
            picture.save(folder / "JPEGImages" / clip / f"{number:05d}.jpg")
            drawn = np.zeros((60, 80), np.uint8)
            drawn[10:30, 10 + number : 30 + number] = 1
            mask = Image.fromarray(drawn)
            mask.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
            mask.save(folder / "Annotations" / clip / f"{number:05d}.png")
    if rate:
        (folder / "JPEGImages" / "fps.txt").write_text(rate)


def test_frame_folders_are_found_next_to_their_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks(tmp_path / "mute", "")
    assert start(tmp_path / "mute", tmp_path / "to") == 1
    told = capsys.readouterr().err
    assert f"write the frames per second to {tmp_path / 'mute' / 'JPEGImages'}" in told
    masks(tmp_path / "data", "10")
    assert start(tmp_path / "data", tmp_path / "to") == 0
    assert "mask_folder: " in capsys.readouterr().out
    recipe = run_recipe(tmp_path / "to")
    assert recipe["eval"]["max_new_tokens"] == 2048
    assert recipe["data"]["train"][0]["template"].endswith("tracking.yaml")


def test_tracks_are_for_tracking_unless_a_template_is_given(
    pond: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(pond, tmp_path / "follow") == 0
    assert "task: tracking (other --template choices: " in capsys.readouterr().out
    assert start(pond, tmp_path / "point", "--template", "video_pointing") == 0
    assert (tmp_path / "point" / "video_pointing.yaml").exists()
    assert start(pond, tmp_path / "no", "--template", "image_count") == 1
    assert "'image_count' does not fit these labels; expected one of" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def sample(kind: str, *notes: object, exhaustive: tuple[str, ...] = ()) -> Sample:
    return Sample("a", Media(kind, (Path("a"),)), notes, exhaustive)  # type: ignore[arg-type]


def track(moments: int) -> Track:
    seen = tuple(Observation(n / 2, n, Point((1, 1))) for n in range(moments))
    return Track("1", "koi", seen)


@pytest.mark.parametrize(
    ("one", "first", "has_counts"),
    [
        (sample("video", track(1)), "video_pointing", False),
        (sample("video", track(1), exhaustive=("koi",)), "video_pointing", True),
        (sample("video", track(9)), "tracking", False),
        (sample("video", Span("jump", 0, 1)), "event_times", False),
        (sample("video", Dialogue("", "a pond")), "video_caption", False),
        (sample("image", Dialogue("What?", "a pond")), "dialogue", False),
        (sample("text", Dialogue("", "a pond")), "dialogue", False),
        (sample("image", Dialogue("What?", "A", options=("a", "b"))), "multiple_choice", False),
        (sample("image", Instance("1", "koi", Point((1, 1)))), "image_pointing", False),
        (sample("image", exhaustive=("koi",)), "image_pointing", True),
    ],
)
def test_fitting_templates(one: Sample, first: str, has_counts: bool) -> None:
    names = fitting_templates([one])
    assert names[0] == first
    assert any(name.endswith("count") for name in names) == has_counts
    for name in names:
        load_template(name)


def test_several_folders_may_use_the_same_names(tmp_path: Path) -> None:
    for part in ("a", "b"):
        BASIC["coco"].write(tmp_path / "data" / part)
        (tmp_path / "data" / part / "x.json").write_text(json.dumps(coco({"bbox": [2, 3, 4, 5]})))
    other_pictures(tmp_path / "data" / "b")
    assert start(tmp_path / "data", tmp_path / "to") == 0
    lines = [*(tmp_path / "to").glob("*.jsonl")]
    ids = [json.loads(line)["id"] for path in lines for line in path.read_text().splitlines()]
    assert len(set(ids)) == len(ids) == 2


def test_the_last_path_component_names_the_split(tmp_path: Path) -> None:
    coco_parts(tmp_path / "training_data")
    _, places = survey(tmp_path, "coco")
    assert [place.split for place in places] == ["train", "val"]


def text(name: str) -> Sample:
    return Sample(name, Media("text"), (Dialogue("Why?", "So."),))


def test_samples_that_share_media_stay_together() -> None:
    pairs = [
        Sample(str(n), Media("image", (Path(f"{n}.png"), Path(f"{n + 1}.png"))), ())
        for n in (*range(10), *range(20, 30))
    ]
    kept, held_out = hold_out(pairs)
    assert len(kept) == len(held_out) == 10
    kept, held_out = hold_out([text(str(n)) for n in range(50)])
    assert (len(kept), len(held_out)) == (45, 5)


def test_media_folders_are_tried_only_for_missing_media(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in range(6):
        folder = tmp_path / f"p{part}"
        BASIC["coco"].write(folder)
        rows = coco({"bbox": [2, 3, 4, 5]}, {"bbox": [2, 3, -4, 5]})
        (folder / "x.json").write_text(json.dumps(rows))
    reads = []

    def counted(*given: Any) -> Any:
        reads.append(given)
        return read_labels(*given)

    monkeypatch.setattr(init_sources, "read_labels", counted)
    assert start(tmp_path, tmp_path / "to") == 0
    assert len(reads) <= 2 * 6
