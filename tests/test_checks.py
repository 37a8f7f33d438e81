"""Each check finds its planted problem, and clean data gives no findings."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmo_tune.checks.answers import check_answers
from molmo_tune.checks.finding import Finding, counted, worst_first
from molmo_tune.checks.recipe_data import check_recipe
from molmo_tune.cli import main
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.sources import read_items
from molmo_tune.labels.formats.jsonl import write_jsonl
from molmo_tune.labels.geometry.masks import pack
from molmo_tune.labels.sample import Box, Dialogue, Instance, Mask, Media, Sample, Shape, Span
from molmo_tune.media.perceptual_hash import NUM_BITS, hash_of, nearest
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.loader import load_recipe

SIZE = (96, 64)


def make_image(folder: Path, name: str, seed: int, size_wh: tuple[int, int] = SIZE) -> Path:
    """A different image for each seed: large blots of color."""
    folder.mkdir(exist_ok=True)
    blots = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    path = folder / name
    Image.fromarray(blots).resize(size_wh, Image.Resampling.BICUBIC).save(path, quality=92)
    return path


def image_sample(path: Path, *shapes: tuple[str, Shape], **stated: object) -> Sample:
    notes = tuple(Instance(str(n), label, shape) for n, (label, shape) in enumerate(shapes))
    return Sample(path.stem, Media("image", (path,), **stated), notes)  # type: ignore[arg-type]


def boxes(*labels: str) -> list[tuple[str, Shape]]:
    return [(label, Box((10.0, 10.0, 40.0, 30.0))) for label in labels]


def recipe_of(folder: Path, train: Sequence[Sample], val: Sequence[Sample], *more: str) -> Path:
    template = "event_times" if isinstance(train[0].annotations[0], Span) else "image_pointing"
    lines = ["model: {name: tiny}", f"output: {{dir: {folder / 'run'}}}", *more]
    lines += ["trainer: {max_steps: 4}", "optim: {warmup_steps: 1}", "data:"]
    for split, samples in (("train", train), ("val", val)):
        if samples:
            path = folder / f"{split}.jsonl"
            write_jsonl(samples, path)
            source = f"{{format: jsonl, path: {path}, template: {template}}}"
            lines.append(f"  {split}: [{source}]")
    recipe = folder / "recipe.yaml"
    recipe.write_text("\n".join([*lines, "  max_tokens: 1024"]) + "\n")
    return recipe


def found(recipe: Path, **options: bool) -> list[str]:
    return [str(one) for one in check_recipe(load_recipe(recipe, []), **options)]


def only(lines: Sequence[str], *parts: str) -> str:
    """The one line with all these parts."""
    hits = [line for line in lines if all(part in line for part in parts)]
    assert len(hits) == 1, "\n".join(lines)
    return hits[0]


def clean(folder: Path) -> tuple[list[Sample], list[Sample]]:
    train = [
        image_sample(make_image(folder, f"t{n}.png", n), *boxes("koi"), size_wh=SIZE)
        for n in range(4)
    ]
    val = [image_sample(make_image(folder, f"v{n}.png", 50 + n), *boxes("koi")) for n in range(2)]
    return train, val


def test_clean_data_has_no_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(tmp_path, *clean(tmp_path))
    assert main(["check", str(recipe)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "no problems"
    assert all(line.startswith("note") for line in lines[1:-1])
    only(lines, "questions by label: koi 4")


def test_size_that_differs_from_labels_is_an_error(tmp_path: Path) -> None:
    train, val = clean(tmp_path)
    train[1] = replace(train[1], media=replace(train[1].media, size_wh=(192, 128)))
    train[2] = replace(train[2], media=replace(train[2].media, size_wh=(64, 96)))
    line = only(found(recipe_of(tmp_path, train, val)), "error", "differs from the labels")
    assert line.startswith("error   data.train.0: 2 images or videos")
    assert "t1 (192x128 in the labels, 96x64 in the file)" in line
    assert "t2 (64x96 in the labels, 96x64 in the file, rotated by 90 degrees?)" in line


def test_shapes_outside_and_beyond_the_frame(tmp_path: Path) -> None:
    train, val = clean(tmp_path)
    path = make_image(tmp_path, "out.png", 9)
    outside, beyond = Box((100.0, 5.0, 120.0, 20.0)), Box((80.0, 5.0, 120.0, 20.0))
    train.append(image_sample(path, ("koi", outside), ("koi", beyond)))
    lines = found(recipe_of(tmp_path, train, val))
    assert "out (koi 0)" in only(lines, "warning", "1 of 6 shapes outside the frame")
    assert "out (koi 1)" in only(lines, "note", "1 of 6 shapes extend beyond the frame")


def test_labels_after_the_end_of_the_video_are_an_error(pond: Path, tmp_path: Path) -> None:
    clip = sorted((pond / "clips").iterdir())[0]
    media = Media("video", (clip,), duration_s=9.0)
    events = [Sample("video", media, (Span("splash", 0.5, 1.0), Span("jump", 1.0, 30.0)))]
    lines = found(recipe_of(tmp_path, events, []))
    only(lines, "error", "1 video with labels after the end: video (labels to 30.0 s")
    only(lines, "warning", "duration that differs from the labels: video (9.0 s in the labels")
    only(lines, "warning", "data.val", "improvement cannot be measured")


def test_repeated_ids_and_unbalanced_labels_are_reported(tmp_path: Path) -> None:
    train, val = clean(tmp_path)
    many = [
        image_sample(make_image(tmp_path, f"m{n}.png", 80 + n), *boxes("newt")) for n in range(21)
    ]
    val.append(image_sample(make_image(tmp_path, "frog.png", 99), *boxes("frog")))
    rare = image_sample(make_image(tmp_path, "crab.png", 98), *boxes("crab"))
    recipe = recipe_of(tmp_path, [*train, *many, rare], val)
    again = tmp_path / "again.jsonl"
    write_jsonl([replace(rare, id="t2")], again)
    second = f"{{format: jsonl, path: {again}, template: image_pointing}}"
    recipe.write_text(
        recipe.read_text().replace("image_pointing}]", f"image_pointing}}, {second}]", 1)
    )
    lines = found(recipe)
    only(lines, "warning", "data.train: 1 id used for several samples: t2")
    only(lines, "warning", "1 rare label: crab (1); the most common has 21 questions")
    only(lines, "warning", "1 label only in data.val, never trained: frog")
    only(lines, "note", "2 labels only in data.train, never scored: newt, crab")


def test_same_image_in_both_splits_is_an_error(tmp_path: Path) -> None:
    train, val = clean(tmp_path)
    line = only(found(recipe_of(tmp_path, train, [*val, train[0]])), "error", "data.val")
    assert "1 media file also in data.train" in line
    copy = tmp_path / "copy.png"
    shutil.copyfile(train[1].media.paths[0], copy)
    line = only(
        found(recipe_of(tmp_path, train, [*val, image_sample(copy, *boxes("koi"))])),
        "copy of media",
    )
    assert line.startswith("error")
    assert f"{copy} is {train[1].media.paths[0]}" in line
    both = found(recipe_of(tmp_path, train, [*val, train[0], image_sample(copy, *boxes("koi"))]))
    only(both, "error", "1 media file also in data.train")
    only(both, "error", "1 copy of media also in data.train")


def test_near_duplicate_in_both_splits_is_a_warning(tmp_path: Path) -> None:
    """Smaller, and as JPEG: different bytes, same appearance."""
    train, val = clean(tmp_path)
    small = tmp_path / "small.jpg"
    Image.open(train[3].media.paths[0]).resize((80, 50)).save(small, quality=60)
    recipe = recipe_of(tmp_path, train, [*val, image_sample(small, *boxes("koi"))])
    line = only(found(recipe), "warning", "1 near-duplicate of media in data.train")
    assert f"{small} and {train[3].media.paths[0]}" in line


def test_reencoded_video_is_a_near_duplicate(pond: Path, tmp_path: Path) -> None:
    """A re-encoded clip is found; other clips of the same generator are not."""
    clips = sorted((pond / "clips").iterdir())
    shorter = tmp_path / "shorter.mp4"
    encode = f"ffmpeg -v error -y -i {clips[0]} -vf scale=iw/2:ih/2 -crf 30 {shorter}"
    subprocess.run(encode.split(), check=True)
    event = (Span("splash", 0.0, 0.5),)
    train = [Sample(clip.stem, Media("video", (clip,)), event) for clip in clips[:3]]
    val = [Sample(path.stem, Media("video", (path,)), event) for path in (clips[3], shorter)]
    line = only(found(recipe_of(tmp_path, train, val)), "near-duplicate")
    assert f"1 near-duplicate of media in data.train: {shorter} and {clips[0]}" in line


def test_few_media_are_compared_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molmo_tune.checks.leaks.COMPARED", 3)
    recipe = recipe_of(tmp_path, *clean(tmp_path))
    only(found(recipe), "note", "compared at most 3 media per split; --media compares all")
    assert not [line for line in found(recipe, all_media=True) if "compared at most" in line]


def test_hashes_of_images_are_far_apart() -> None:
    rng = np.random.default_rng(0)
    images = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).resize((90, 60)), np.uint8
        )
        for _ in range(20)
    ]
    hashes = np.stack([h for h in map(hash_of, images) if h is not None])
    indices, bits = nearest(hashes, hashes)
    assert indices.tolist() == list(range(20))
    assert not bits.any()
    _, distances = nearest(hashes[:1], hashes[1:])
    assert distances[0] > NUM_BITS / 6
    assert hash_of(np.full((60, 90, 3), 128, np.uint8)) is None


def items_of(recipe: Path) -> list[Item]:
    loaded = load_recipe(recipe, [])
    return read_items(loaded.data.train, loaded, load_processor("tiny"))[0]


def test_answer_with_points_off_its_label_is_an_error(tmp_path: Path) -> None:
    items = items_of(recipe_of(tmp_path, *clean(tmp_path)))
    assert not list(check_answers("here", items, 7))
    conversation = items[0].conversations[0]
    assert " 260 312" in conversation.answer
    for answer, number in ((" 262 312", 1), (" 800 312", 2)):  # still in the box; outside it
        moved = replace(conversation, answer=conversation.answer.replace(" 260 312", answer))
        wrong = replace(items[0], conversations=(moved,))
        findings = list(check_answers("here", [wrong, *items[1:]], 7))
        assert len(findings) == number
        assert findings[0].severity == "error"


def test_random_points_are_reproduced_by_the_seed(tmp_path: Path) -> None:
    pixels = np.zeros((64, 96), np.bool_)
    pixels[8:50, 12:80] = True
    mask: Mask = pack(pixels)
    sample = image_sample(make_image(tmp_path, "a.png", 1), ("koi", mask), ("koi", mask))
    recipe = recipe_of(tmp_path, [sample], [])
    template = tmp_path / "random.yaml"
    bundled = Path("data_templates/image_pointing.yaml").read_text()
    template.write_text(bundled + "\npoint: random_in_mask\n")
    recipe.write_text(recipe.read_text().replace("image_pointing}", f"{template}}}"))
    items = items_of(recipe)
    seed = load_recipe(recipe, []).seed
    assert not list(check_answers("here", items, seed))
    assert list(check_answers("here", items, seed + 1)), "the seed matters"


def test_number_of_frames_that_fit_is_exact(pond_recipe: Path, pond: Path) -> None:
    """With that many frames, each clip is one sequence; with one more, some are split."""
    lines = [str(one) for one in check_recipe(load_recipe(pond_recipe, ["data.max_tokens=300"]))]
    line = only(lines, "frames fit in a sequence")
    fit = int(line.split(" tokens), ")[1].split()[0])
    num_sequences = []
    for max_frames in (fit, fit + 1):
        changes = [f"video.max_frames={max_frames}", "video.max_fps=30", "data.max_tokens=300"]
        recipe = load_recipe(pond_recipe, changes)
        items, _ = read_items(recipe.data.train, recipe, load_processor("tiny"))
        num_sequences.append(len(items))
    assert num_sequences[0] == 4
    assert num_sequences[1] > 4


def test_sparse_sampling_is_a_warning(pond_recipe: Path) -> None:
    lines = [str(one) for one in check_recipe(load_recipe(pond_recipe, ["video.max_frames=2"]))]
    assert "sampled at as little as" in only(
        lines, "warning", "4 of 4 videos too long for 2 frames"
    )


def test_many_epochs_are_a_warning(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, *clean(tmp_path))
    recipe.write_text(recipe.read_text().replace("max_steps: 4", "max_steps: 600"))
    only(found(recipe), "warning", "trainer.max_steps: 600 epochs over each sequence")


def test_findings_are_sorted_worst_first() -> None:
    findings = [
        Finding("note", "a", "figures"),
        Finding("warning", "b", "few", 1),
        Finding("error", "c", "broken"),
        Finding("warning", "d", "many", 30),
    ]
    assert [one.where for one in worst_first(findings)] == ["c", "d", "b", "a"]
    assert counted(findings) == "1 error, 2 warnings"


def test_markup_in_labels_is_printed_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "[a]"
    folder.mkdir()
    train = [image_sample(make_image(folder, "t.png", 1), *boxes("[koi]", "[/INST]"))]
    assert main(["check", str(recipe_of(tmp_path, train, []))]) == 0
    assert "questions by label: [koi] 1, [/INST] 1" in capsys.readouterr().out


@pytest.mark.slow
def test_epochs_are_counted_in_packs(tmp_path: Path) -> None:
    train = [image_sample(make_image(tmp_path, f"t{n}.png", n), *boxes("koi")) for n in range(40)]
    recipe = load_recipe(recipe_of(tmp_path, train, []), ["data.packing=true"])
    line = only([str(one) for one in check_recipe(recipe)], "packs, 4 per step")
    assert "max_steps = 4 is " in line
    assert float(line.split("max_steps = 4 is ")[1].split()[0]) > 4


def test_points_in_dialogue_answers_are_not_checked(tmp_path: Path) -> None:
    path = make_image(tmp_path, "a.png", 1)
    points = '<points coords="1 1 500 500">cat</points>'
    sample = Sample("a", Media("image", (path,)), (Dialogue("Where?", points),))
    recipe = recipe_of(tmp_path, [sample], [])
    recipe.write_text(recipe.read_text().replace("image_pointing", "dialogue"))
    assert not list(check_answers("here", items_of(recipe), 7))


def test_media_check_without_media_and_with_missing_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = Sample("a", Media("text"), (Dialogue("Why?", "So."),))
    recipe = recipe_of(tmp_path, [sample], [])
    recipe.write_text(recipe.read_text().replace("image_pointing", "dialogue"))
    assert main(["check", str(recipe), "--media"]) == 0
    assert "0 of 0 media files decoded" in capsys.readouterr().out
    (tmp_path / "train.jsonl").unlink()
    assert main(["check", str(recipe), "--media"]) == 1
    assert " decoded" in capsys.readouterr().out
