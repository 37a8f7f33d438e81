"""Training with caches and bad media: bit-identical results, counts and refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from molmo_tune.checks.recipe_data import check_recipe
from molmo_tune.choices import Decoder
from molmo_tune.cli import main
from molmo_tune.commands.convert import convert
from molmo_tune.encoding import media_inputs
from molmo_tune.encoding.datasets import TrainingSet, encode_questions
from molmo_tune.encoding.encoded import EncodedSample, Opening
from molmo_tune.encoding.packing import pack
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.errors import UserError
from molmo_tune.media import resized_frames
from molmo_tune.media.array_cache import ArrayCache
from molmo_tune.model.feature_cache import fingerprint
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe, VideoSection
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.callbacks.media_monitor import MediaMonitor
from molmo_tune.training.run import train
from tests.stopped_training import stopping_after
from tests.test_training import read_metrics

LANGUAGE = "adapter.targets=[language]"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text())
    return found


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def run_of(recipe: Path, out: Path, *settings: str, console: Console | None = None) -> Path:
    train(load_recipe(recipe, [f"output.dir={out}", *settings]), console or Console(quiet=True))
    return out


def items_of(recipe: Path, *settings: str) -> tuple[Recipe, Any, list[Any]]:
    loaded = load_recipe(recipe, list(settings))
    processor = load_processor("tiny")
    return loaded, processor, read_items(loaded.data.train, loaded, processor)[0]


def test_training_with_the_frame_cache_is_bit_identical(
    pond_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the cache, filling it, and reading only from it while decoding raises an error."""
    cache = f"data.frame_cache={{dir: {tmp_path / 'frames'}, max_gb: 1}}"
    plain = run_of(pond_recipe, tmp_path / "plain")
    filling = run_of(pond_recipe, tmp_path / "filling", cache)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a frame was decoded")

    monkeypatch.setattr(resized_frames, "stream_frames", refuse)
    filled = run_of(pond_recipe, tmp_path / "filled", cache)
    assert equal(plain, filling)
    assert equal(plain, filled)
    assert report(plain)["media"]["from"] == {"file": 12}
    assert report(filling)["media"]["from"] == {"file": 4, "frame_cache": 8}
    assert report(filled)["media"]["hit_rate"] == {"frame_cache": 1.0}


def test_a_cached_frame_is_never_stale(pond_recipe: Path, tmp_path: Path) -> None:
    """Each file, size, decoder, sampling and resizing code has its own entry."""
    clips = tmp_path / "clips"
    cache = f"data.frame_cache={{dir: {tmp_path / 'frames'}}}"
    _, processor, items = items_of(pond_recipe, cache)
    source = items[0].sample.media.paths[0]
    clips.mkdir()
    path = Path(shutil.copy(source, clips / "a.mp4"))
    indices = items[0].sampled.indices
    loaded = load_recipe(pond_recipe, [cache])
    reading, resizing = limits_of(loaded).reading, media_inputs.resizing_of(processor)

    def is_cached(reading: Any = reading, resizing: Any = resizing, numbers: Any = indices) -> bool:
        resized = resized_frames.read_resized_frames(path, numbers, resizing, reading)
        fresh = resized_frames.read_resized_frames(
            path, numbers, resizing, resized_frames.Reading(reading.decoder)
        )
        assert np.array_equal(resized.frames, fresh.frames)
        return resized.is_from_cache

    smaller = resized_frames.Resizing("other", resizing.resize, resizing.size_hw)
    by_decord = resized_frames.Reading("decord", 9.0, reading.cache)
    for _ in range(2):
        found = [
            is_cached(),
            is_cached(by_decord),
            is_cached(resizing=smaller),
            is_cached(numbers=[0, 3]),
        ]
        assert len(set(found)) == 1
        assert is_cached()
    assert found == [True] * 4
    assert is_cached(numbers=[3, 0, 0, 3])  # the same frames in another order
    other = next(
        item.sample.media.paths[0] for item in items if item.sample.media.paths[0] != source
    )
    shutil.copy(other, path)
    assert not is_cached()


def test_a_failing_cache_is_reported_once(
    pond_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = f"data.frame_cache={{dir: {tmp_path / 'frames'}}}"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ArrayCache, "_write", full)
    console = Console(record=True, width=200, quiet=False, file=(tmp_path / "out").open("w"))
    run = run_of(pond_recipe, tmp_path / "run", cache, "trainer.max_steps=2", console=console)
    assert console.export_text().count("No space left on device; training goes on") == 1
    assert report(run)["media"]["not_kept"] == {"No space left on device": 4}
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.frame_cache\.dir: .* cannot be written to"):
        run_of(pond_recipe, tmp_path / "no", f"data.frame_cache={{dir: {tmp_path / 'file'}/x}}")


def test_training_with_the_feature_cache_is_equal_within_tolerance(
    pond_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = f"data.feature_cache={{dir: {tmp_path / 'features'}}}"
    plain = run_of(pond_recipe, tmp_path / "plain", LANGUAGE)
    filling = run_of(pond_recipe, tmp_path / "filling", LANGUAGE, cache)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a media file was opened")

    monkeypatch.setattr(media_inputs, "_opened", refuse)
    filled = run_of(pond_recipe, tmp_path / "filled", LANGUAGE, cache)
    assert report(filling)["media"]["from"] == {"file": 4, "feature_cache": 8}
    assert report(filled)["media"]["hit_rate"] == {"feature_cache": 1.0}
    for name, losses in (("filling", filling), ("filled", filled)):
        pairs = zip(read_metrics(plain)[1:], read_metrics(losses)[1:], strict=True)
        assert all(float(a[1]) == pytest.approx(float(b[1]), rel=2e-3) for a, b in pairs), name
    ours, theirs = weights(filled), weights(plain)
    moved = [name for name in theirs if "lora_B" in name]  # from zero
    difference, norm = (
        torch.cat([tensor.flatten() for tensor in tensors]).norm()
        for tensors in ([ours[name] - theirs[name] for name in moved], map(theirs.get, moved))
    )
    assert difference < 0.1 * norm
    assert equal(filling, filled)


@pytest.mark.slow
def test_features_in_packs(pond_recipe: Path, tmp_path: Path) -> None:
    """Half of a batch's media are cached, in batch rows of several samples."""
    settings = [LANGUAGE, "data.packing=true", "data.max_tokens=2000", "trainer.max_steps=3"]
    cache = f"data.feature_cache={{dir: {tmp_path / 'features'}}}"
    plain = run_of(pond_recipe, tmp_path / "plain", *settings)
    run_of(pond_recipe, tmp_path / "filling", *settings, cache)
    entries = sorted((tmp_path / "features").glob("??/*.npy"))
    for entry in entries[::2]:
        entry.unlink()
    mixed = run_of(pond_recipe, tmp_path / "mixed", *settings, cache)
    origins = report(mixed)["media"]["from"]
    assert origins["file"] == len(entries[::2])
    assert origins["feature_cache"] > 0
    assert report(mixed)["packing"] == report(plain)["packing"]
    losses = [[float(row[1]) for row in read_metrics(run)[1:]] for run in (plain, mixed)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_another_checkpoint_has_other_features() -> None:
    model, processor = load_model("tiny"), load_processor("tiny")
    first = fingerprint(model.model, processor, "32-true")
    assert fingerprint(load_model("tiny").model, processor, "32-true") == first
    assert fingerprint(model.model, processor, "bf16-true") != first
    with torch.no_grad():
        model.model.multi_modal_projector.image_projector.down_proj.weight[0, 0] += 1e-3
    assert fingerprint(model.model, processor, "32-true") != first


def test_features_of_trained_components_are_refused(pond_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"feature_cache.*has connector and vision.*change"):
        load_recipe(pond_recipe, [f"data.feature_cache={{dir: {tmp_path}}}"])


@pytest.fixture
def bad_recipe(pond_recipe: Path, pond: Path, tmp_path: Path) -> Path:
    """The pond recipe with one clip whose header is intact and whose frames are damaged."""
    clips = tmp_path / "clips"
    shutil.copytree(pond / "clips", clips)
    damage(sorted(clips.iterdir())[1])
    text = pond_recipe.read_text().replace(f"media: {pond / 'clips'}", f"media: {clips}", 1)
    pond_recipe.write_text(
        text.replace("num_workers: 0", "num_workers: 0\n  max_unreadable_media: 0.3")
    )
    return pond_recipe


def damage(clip: Path) -> None:
    """Damage all frames but the first, the only one that is decoded before training."""
    content = bytearray(clip.read_bytes())
    start = content.index(b"mdat")
    end = content.index(b"moov") if content.find(b"moov") > start else len(content)
    middle = start + (end - start) // 2
    content[middle : end - 8] = np.random.default_rng(0).bytes(end - 8 - middle)
    clip.write_bytes(content)


def test_bad_media_are_quarantined_and_training_continues(bad_recipe: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=300, file=(tmp_path / "out").open("w"))
    run = run_of(bad_recipe, tmp_path / "run", console=console)
    media = report(run)["media"]
    assert list(media["bad"]) == [str(sorted((tmp_path / "clips").iterdir())[1])]
    assert "does not decode" in next(iter(media["bad"].values()))
    assert media["from"] == {"file": 9, "nowhere": 3}
    assert "skipped 1 unreadable media:" in console.export_text()
    losses = [float(row[1]) for row in read_metrics(run)[1:]]
    assert all(np.isfinite(losses))


def test_too_many_bad_media_are_an_error(bad_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"max_unreadable_media: 1 of 4 training media.*does not decode"
    ):
        run_of(bad_recipe, tmp_path / "run", "data.max_unreadable_media=0.2")


def test_media_that_do_not_open_are_found_before_training(pond: Path, pond_recipe: Path) -> None:
    """Labels in our own format are read without opening the media; planning opens them."""
    folder = pond_recipe.parent
    clips, labels = folder / "clips", folder / "train.jsonl"
    shutil.copytree(pond / "clips", clips)
    convert(pond / "labels", None, clips, labels, Console(quiet=True))
    broken = sorted(clips.iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:400])
    source = f"data.train=[{{format: jsonl, path: {labels}}}]"
    with pytest.raises(UserError, match=r"max_unreadable_media: 1 of 4 training media do not open"):
        run_of(pond_recipe, folder / "no", source)
    run = run_of(pond_recipe, folder / "run", source, "data.max_unreadable_media=0.3")
    assert list(report(run)["media"]["bad"]) == [str(broken)]
    assert report(run)["train"]["samples"] == 3
    assert report(run)["media"]["from"] == {"file": 12}
    findings = [str(finding) for finding in check_recipe(load_recipe(pond_recipe, [source]))]
    assert any(str(broken) in text and "not a video" in text for text in findings)


@pytest.mark.slow
def test_a_bad_validation_file_skips_only_its_own_questions(
    bad_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """During training and in the evaluate command."""
    good = r"(val: .*media: )[^}]+"  # validate on the damaged clips, too
    text = re.sub(good, rf"\g<1>{tmp_path / 'clips'}", bad_recipe.read_text())
    bad_recipe.write_text(text)
    run = run_of(bad_recipe, tmp_path / "run", "eval.every_steps=2", "eval.max_new_tokens=4")
    assert report(run)["media"]["bad_val"]
    assert main(["evaluate", str(run)]) == 0
    output = capsys.readouterr().out
    assert "1 questions or media skipped:" in output
    assert "does not decode" in output
    kept = json.loads(RunFolder(run).evaluation("after").read_text())
    [reason] = kept["skipped"]
    assert str(sorted((tmp_path / "clips").iterdir())[1]) in reason
    assert kept["summary"]["skipped"] == 1
    assert kept["summary"]["questions"] == len(kept["records"]) > 0
    for clip in (tmp_path / "clips").iterdir():
        damage(clip)
    assert main(["evaluate", str(run)]) == 1
    assert "none of 4 media files opens, the first:" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_with_bad_media_is_bit_identical(bad_recipe: Path, tmp_path: Path) -> None:
    uninterrupted = run_of(bad_recipe, tmp_path / "uninterrupted")
    resumed = load_recipe(bad_recipe, [f"output.dir={tmp_path / 'resumed'}"])
    with stopping_after(3):
        assert train(resumed, Console(quiet=True)).steps == 3
    assert train(resumed, Console(quiet=True), resume=True).steps == 6
    assert equal(uninterrupted, tmp_path / "resumed")
    media = [report(run)["media"] for run in (uninterrupted, tmp_path / "resumed")]
    assert media[0] == media[1]


def test_a_bad_sample_is_left_out_of_its_pack(bad_recipe: Path) -> None:
    recipe, processor, items = items_of(bad_recipe)
    samples = TrainingSet(items, processor, limits_of(recipe), quarantine=True)
    encoded = [samples[number] for number in range(len(items))]
    bad = [sample for sample in encoded if sample.is_quarantined]
    good = [sample for sample in encoded if not sample.is_quarantined]
    assert len(bad) == 1
    with_it, without = pack([good[0], bad[0], good[1]]), pack(good[:2])
    for name in ("input_ids", "loss_weights", "example_ids", "patches"):
        assert np.array_equal(getattr(with_it, name), getattr(without, name)), name
    assert len(with_it.openings) == 3
    alone: EncodedSample = pack(bad)
    assert alone.num_tokens == 1
    assert alone.num_supervised == 0
    with pytest.raises(UserError, match="does not decode"):
        TrainingSet(items, processor, limits_of(recipe))[encoded.index(bad[0])]


@pytest.mark.slow
def test_loader_processes_report_bad_media_and_waiting(bad_recipe: Path, tmp_path: Path) -> None:
    """A spawned loader with a cache and a bad clip; the run's report has the waiting time."""
    settings = ("data.num_workers=1", "data.prefetch=3", "trainer.max_steps=4")
    cache = f"data.frame_cache={{dir: {tmp_path / 'frames'}}}"
    alone = run_of(bad_recipe, tmp_path / "alone", "trainer.max_steps=4")
    run = run_of(bad_recipe, tmp_path / "run", cache, *settings)
    assert equal(run, alone)
    media, wait = report(run)["media"], report(run)["data_wait"]
    assert media["opened"] == 8
    assert len(media["bad"]) == 1
    assert 0 <= wait["share"] <= 1
    assert wait["first_batch_s"] > 0.1  # processes have to start
    assert 0 <= wait["waited_s"] <= wait["of_s"]


def _in_process(rank: int, meeting: Path, share: float) -> int:
    """Run one of two processes, each with its own bad media file; return 0 on success."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
    )
    watch = MediaMonitor(Console(quiet=True), 10, share)
    trainer, module = cast(Any, None), cast(Any, SimpleNamespace(device=torch.device("cpu")))
    good = Opening("good", "file")
    bad = Opening("ab"[rank], "nowhere", f"{'ab'[rank]} is broken")
    for openings in ((good,), (good, bad) if rank else (good,), (bad,)):
        try:
            batch = cast(Any, SimpleNamespace(openings=openings))
            watch.on_train_batch_end(trainer, module, None, batch)
        except UserError as error:
            return 3 if "2 of 10" in str(error) and "a is broken" in str(error) else 1
    watch.on_train_end(trainer, module)
    return 0 if list(watch.bad) == ["a", "b"] and watch.origins["file"] == 4 else 2


@pytest.mark.parametrize(("share", "code"), [(0.2, 0), (0.15, 3)])
def test_bad_media_are_shared_among_processes(share: float, code: int, tmp_path: Path) -> None:
    """One bad file in each process is too many in total: both stop at the same step."""
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            try:
                os._exit(_in_process(rank, tmp_path / "meeting", share))
            finally:
                os._exit(99)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [code, code]


def test_decoder_and_timeout_come_from_the_recipe(
    pond_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("video.decoder=decord", "video.timeout_s=7.5")
    recipe, processor, items = items_of(pond_recipe, *settings)
    received: list[Any] = []
    stream = resized_frames.stream_frames

    def recorded(*arguments: Any, **options: Any) -> Any:
        received.append(options)
        return stream(*arguments, **options)

    monkeypatch.setattr(resized_frames, "stream_frames", recorded)
    encode_questions(items[0], processor, limits_of(recipe))
    assert received == [{"decoder": "decord", "timeout_s": 7.5}]
    assert get_args(VideoSection.model_fields["decoder"].annotation) == get_args(Decoder)
