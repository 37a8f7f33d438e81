"""Predictions use the prompts of training and give text, points and labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmo_tune.cli import main
from molmo_tune.encoding.datasets import encode_questions
from molmo_tune.encoding.items import MediaLimits, item_to_ask
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.errors import UserError
from molmo_tune.evaluation.generation import Answer, generate_answers
from molmo_tune.evaluation.predict import Prediction, media_of, predict
from molmo_tune.grounding.text import label_of_answer
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.sample import Dialogue, Instance, Media, Point, Sample, Track
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.template import load_template

LIMITS = MediaLimits(8, 2.0, 2)


def noise(path: Path, size_wh: tuple[int, int] = (90, 60)) -> Path:
    Image.effect_noise(size_wh, 80).convert("RGB").save(path)
    return path


def answered(media: Media, *answers: str) -> Prediction:
    """A prediction with these answers, without a model."""
    item = item_to_ask(Sample("a", media, ()), load_template("dialogue"), LIMITS)
    conversations = tuple(
        Conversation("a", "", f"Question {n}?", text) for n, text in enumerate(answers)
    )
    results = tuple(Answer(text, False) for text in answers)
    patches = np.zeros((1, 1, 1), np.float32)
    return Prediction(replace(item, conversations=conversations), results, patches)


def test_prediction_uses_the_prompt_of_training(pond_recipe: Path) -> None:
    """A question gets the same answer in a recipe and in `predict`."""
    recipe = load_recipe(pond_recipe, [])
    processor, limits = load_processor("tiny"), limits_of(recipe)
    model = load_model("tiny").eval()
    item = read_items(recipe.data.train, recipe, processor)[0][0]
    prompts = encode_questions(item, processor, limits)
    expected = [generate_answers(model, processor, [p], max_new_tokens=24)[0] for p in prompts]
    questions = [conversation.question for conversation in item.conversations]
    media = [item.sample.media]
    (found,) = predict(model, processor, media, questions, limits, max_new_tokens=24)
    assert isinstance(found, Prediction)
    assert list(found.answers) == expected


def test_points_become_pixels_and_labels(pond: Path, tmp_path: Path) -> None:
    clip = sorted((pond / "clips").iterdir())[0]
    video = Media("video", (clip,))
    tracks = '<tracks coords="0.0 1 100 100 2 500 500;0.5 1 200 100">koi</tracks>'
    found = answered(video, tracks, "A pond.")
    records = found.to_json()
    assert records[0]["points"] == [
        {"id": "1", "time_s": 0.0, "x_px": 16.0, "y_px": 12.0},
        {"id": "2", "time_s": 0.0, "x_px": 80.0, "y_px": 60.0},
        {"id": "1", "time_s": 0.5, "x_px": 32.0, "y_px": 12.0},
    ]
    assert records[1]["points"] == []
    first, second, words = found.to_sample().annotations
    assert isinstance(first, Track)
    assert isinstance(second, Track)
    assert [seen.time_s for seen in first.observations] == [0.0, 0.5]
    assert first.label == second.label == "koi"
    assert words == Dialogue("Question 1?", "A pond.")
    image = noise(tmp_path / "a.png")
    single = answered(Media("image", (image,)), '<points coords="1 1 500 500">newt</points>')
    assert single.to_sample().annotations == (Instance("1.1", "newt", Point((45.0, 30.0))),)
    both = Media("image", (image, noise(tmp_path / "b.png", (200, 100))))
    several = answered(both, '<points coords="2 1 500 500">newt</points>')
    assert several.to_json()[0]["points"] == [{"id": "1", "image": 2, "x_px": 100.0, "y_px": 50.0}]
    assert several.to_sample().annotations == (Instance("1.1", "newt", Point((100.0, 50.0)), 1),)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('<points coords="0.5 1 100 100">red koi</points>', "red koi"),
        ('Two: <tracks coords="0.5 1 100 100"> koi </tracks> and more', "koi"),
        ('<points coords="0.5 1 100 100">koi', ""),
        ("none", ""),
    ],
)
def test_label_of_answer(text: str, label: str) -> None:
    assert label_of_answer(text) == label


def test_media_kinds_by_extension(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.PNG", "b.mp4", "frames")]
    assert [one.kind for one in media_of(paths)] == ["image", "video", "video"]
    assert media_of(paths[:1] * 2, together=True) == [Media("image", (paths[0], paths[0]))]
    with pytest.raises(UserError, match=r"b.mp4: not an image; expected images with --together"):
        media_of(paths, together=True)


def test_command_writes_resultspage_and_labels(
    pond: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, image = sorted((pond / "clips").iterdir())[0], noise(tmp_path / "a.png")
    out = tmp_path / "out"
    call = ["predict", "tiny", str(clip), str(image), "--max-frames", "4", "--out", str(out)]
    ask = ["--ask", "Point to the [frog].", "--ask", "How many?", "--max-new-tokens", "12"]
    assert main([*call, *ask]) == 0
    output = capsys.readouterr().out
    assert f"{clip}: Point to the [frog]." in output
    records = json.loads((out / "answers.json").read_text())
    assert [record["question"] for record in records] == ["Point to the [frog].", "How many?"] * 2
    page = (out / "answers.html").read_text()
    assert page.count("<section") == 2
    assert page.count("data:image/jpeg") == 3 + 1
    samples, report = read_labels("jsonl", out / "labels.jsonl")
    assert [sample.media.paths[0] for sample in samples] == [clip, image]
    assert not report.num_dropped
    assert main([*call, *ask]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "media", "out", "message"),
    [
        ("tiny", "nothing.mp4", "out", "no such image"),
        ("./none", "a.png", "out", "folder"),
        ("tiny", "a.png", "a.png", "is a file; expected a new folder"),
    ],
)
def test_unusable_arguments_are_clear_errors(
    model: str,
    media: str,
    out: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    noise(tmp_path / "a.png")
    call = ["predict", model, str(tmp_path / media), "--ask", "What?"]
    assert main([*call, "--out", str(tmp_path / out)]) == 1
    assert message in capsys.readouterr().err


def test_one_unreadable_file_costs_no_other_answer(
    pond: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, clip = tmp_path / "bad.mp4", sorted((pond / "clips").iterdir())[0]
    bad.write_bytes(clip.read_bytes()[:300])
    out = tmp_path / "out"
    call = ["predict", "tiny", str(bad), str(clip), "--ask", "What?", "--max-new-tokens", "4"]
    assert main([*call, "--out", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f"skipped: {bad}: not a video")
    assert [record["media"] for record in json.loads((out / "answers.json").read_text())] == [
        [str(clip)]
    ]


@pytest.mark.parametrize("rate", ["0", "nan", "-1", "many"])
def test_max_fps_must_be_positive(rate: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["predict", "tiny", "a.mp4", "--ask", "What?", f"--max-fps={rate}"])
    assert exit_.value.code == 2
