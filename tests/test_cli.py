"""The command as a user meets it: exit codes, one clear message, nothing half-written."""

from __future__ import annotations

import argparse
import io
import json
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from rich.console import Console

from molmo_tune.cli import VERBS, main, parser
from molmo_tune.commands.demo import Steps
from molmo_tune.labels.read import READERS
from molmo_tune.recipe.bundled import bundled, list_bundled

EIGHT_ISSUES = """\
seed: 7
model:
  name: tiny
  dtype: flaot32
adapter:
  rank: "16"
  dropuot: 0.1
data:
  train:
    - {format: jsonl}
optim:
  lr: -1.0
  schedule: !cosine cosine
trianer:
  max_steps: 5
output:
  dir: out
"""


def run_cli(arguments: Sequence[object], **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "molmo_tune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"    {verb} " in text for verb in VERBS)


def test_help_is_fast() -> None:
    """At most 0.3 s on an idle machine: CPU time, which other processes do not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "molmo_tune", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def _actions(verb: str) -> list[argparse.Action]:
    verbs = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return verbs.choices[verb]._actions


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_has_a_help_text(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert import_module(f"molmo_tune.commands.{verb}").HELP in " ".join(
        capsys.readouterr().out.split()
    )
    for action in _actions(verb):
        assert action.dest != "handler"  # would replace the verb's own
        assert action.help, action
        assert not action.help.endswith("."), action.help
        assert not action.help[0].isupper() or action.help[1].isupper(), action.help


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["preview", "r", "--samples", "0"], "argument --samples: must be at least 1, not 0"),
        (["preview", "r", "--samples", "x"], "argument --samples: must be an integer, not 'x'"),
        (["predict", "tiny", "a", "--ask", "b", "--max-fps", "0"], "--max-fps: must be above 0"),
        (["predict", "tiny", "a", "--ask", "b", "--max-fps", "x"], "--max-fps: must be a number"),
        (["plan", "r", "--memory", "inf"], "argument --memory: must be above 0, not inf"),
        (["demo", "--seed", "-1"], "argument --seed: must be at least 0, not -1"),
        (["export", "r", "--out", "o", "--quantize", "int4"], "(choose from"),
    ],
)
def test_bad_option_values_are_explained(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2() -> None:
    assert run_cli(["tarin"]).returncode == 2


def test_eight_issues_are_eight_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(EIGHT_ISSUES)
    done = run_cli(["check", recipe, "--set", "eval.batch_size=many"])
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    where = [line.removeprefix(f"{recipe}:").split(":")[0] for line in lines]
    assert where == ["4", "6", "7", "10", "12", "13", "14", "--set eval.batch_size=many"]


def _recipe(tmp_path: Path, **source: object) -> Path:
    named = ", ".join(f"{key}: {value}" for key, value in source.items())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {name: tiny}\n"
        f"data: {{train: [{{{named}}}], num_workers: 0}}\n"
        "trainer: {max_steps: 1}\n"
        f"output: {{dir: {tmp_path / 'run'}}}\n"
    )
    return recipe


def _fails(tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one message of a run that must fail before it writes anything."""
    assert main(["train", str(recipe)]) == 1
    message = capsys.readouterr().err.strip()
    assert "Traceback" not in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    return message


def test_a_missing_label_file(
    tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(tmp_path, format="cvat_video", path=tmp_path / "no.xml", media=pond / "clips")
    assert "no.xml" in _fails(tmp_path, recipe, capsys)


def test_an_empty_dataset(tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    recipe = _recipe(tmp_path, format="jsonl", path=empty)
    assert "empty" in _fails(tmp_path, recipe, capsys)


def test_labels_of_another_format(
    tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pond / "labels" / "pond_000.xml"
    recipe = _recipe(tmp_path, format="label_studio_video", path=file, media=pond / "clips")
    assert "cvat_video" in _fails(tmp_path, recipe, capsys)


def test_an_unreadable_video(
    tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "pond_000.mp4").write_bytes(b"not a video" * 100)
    file = pond / "labels" / "pond_000.xml"
    recipe = _recipe(tmp_path, format="cvat_video", path=file, media=clips)
    assert "pond_000.mp4" in _fails(tmp_path, recipe, capsys)


def test_an_output_folder_that_cannot_be_written(
    tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is a file in the place of the run folder (root can write anywhere else)."""
    (tmp_path / "file").touch()
    recipe = _recipe(tmp_path, format="cvat_video", path=pond / "labels", media=pond / "clips")
    arguments = ["train", str(recipe), "--set", f"output.dir={tmp_path / 'file' / 'run'}"]
    assert main(arguments) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_another_architecture_and_a_missing_checkpoint(
    tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(tmp_path, format="cvat_video", path=pond / "labels", media=pond / "clips")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name, word in ((other, "bert"), (tmp_path / "none", "not a folder")):
        assert main(["train", str(recipe), "--set", f"model.name={name}"]) == 1
        assert word in capsys.readouterr().err


def test_convert_check_and_preview(
    tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.jsonl"
    media = ["--media", str(pond / "clips")]
    assert main(["convert", str(pond / "labels"), *media, "--out", str(out)]) == 0
    report = json.loads(out.with_suffix(".report.json").read_text())
    assert report["num_samples"] == 4
    recipe = _recipe(tmp_path, format="jsonl", path=out)
    capsys.readouterr()
    assert main(["check", str(recipe)]) == 0
    assert "4 samples" in capsys.readouterr().out
    page = tmp_path / "preview.html"
    assert main(["preview", str(recipe), "--out", str(page)]) == 0
    text = page.read_text()
    assert text.count('class="card"') == 4
    assert 'class="t" style="--w: 1.000" title="weight 1"' in text
    assert "&lt;im_patch&gt;×" in text
    assert 'src="http' not in text
    assert 'href="http' not in text


def test_check_finds_a_leak(tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"format: cvat_video, path: {pond / 'labels'}, media: {pond / 'clips'}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name: tiny}}\ndata: {{train: [{{{source}}}], val: [{{{source}}}]}}\n"
        f"output: {{dir: {tmp_path / 'run'}}}\n"
    )
    assert main(["check", str(recipe)]) == 1
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("error")
    assert "4 media files also in data.train" in first


def test_convert_refuses_losses_and_writes_nothing(
    tmp_path: Path, pond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (pond / "labels" / "pond_000.xml").read_text()
    labels = tmp_path / "labels.xml"
    outside = re.sub(r'xtl="[^"]*"(.*?)xbr="[^"]*"', r'xtl="500"\1xbr="520"', text, count=1)
    labels.write_text(outside)
    out = tmp_path / "out.jsonl"
    arguments = ["convert", str(labels), "--media", str(pond / "clips"), "--out", str(out)]
    assert main(arguments) == 1
    assert "would drop 1 annotations; see the table" in capsys.readouterr().err
    assert not out.exists()
    assert main([*arguments, "--allow-lossy"]) == 0
    assert out.is_file()


def test_recipes_are_listed_and_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for kind in ("recipes", "data_templates"):
        for name in list_bundled(kind):
            assert re.search(rf"(?m)^  {name}  +[A-Z].*[.?]$", listed), name
    assert main(["recipes", "video_pointing_lra"]) == 1
    assert "did you mean video_pointing_lora?" in capsys.readouterr().err
    assert main(["recipes", "copy"]) == 1
    assert "run molmo-tune recipes for the list" in capsys.readouterr().err
    assert main(["recipes", "video_pointing_lora", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "video_pointing_lora.yaml").is_file()
    assert main(["recipes", "video_pointing_lora", "--to", str(tmp_path)]) == 1


def test_bundled_recipes_and_templates_are_sound() -> None:
    from molmo_tune.recipe.loader import load_recipe
    from molmo_tune.templates.template import load_template

    for name in list_bundled("recipes"):
        load_recipe(bundled("recipes", name))
    for name in list_bundled("data_templates"):
        load_template(name)


def test_the_demo_does_not_touch_a_full_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_formats_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats"]) == 0
    listed = capsys.readouterr().out
    for name, reader in READERS.items():
        assert re.search(rf"(?m)^{name} +{re.escape(reader.title)}$", listed)
        assert main(["formats", name]) == 0
        text = capsys.readouterr().out
        assert text.startswith(reader.title)
        assert len(text.splitlines()) >= 3
    assert main(["formats", "nothing"]) == 1
    assert "nothing: not a label format; run molmo-tune formats" in capsys.readouterr().err


def test_a_step_of_the_demo_is_announced_by_its_name() -> None:
    console = Console(record=True, markup=False, width=40, file=io.StringIO())
    with Steps(console).step("convert (train)", "convert labels"):
        pass
    lines = console.export_text().splitlines()
    assert lines[0].startswith("convert (train) ──")
    assert lines[1] == "$ molmo-tune convert labels"
