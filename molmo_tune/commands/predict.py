"""`molmo-tune predict MODEL MEDIA… --ask QUESTION`: answers about media that nobody labelled.

The model is a run (its adapter on its base, with the run's caps on media), or a checkpoint: a hub
id, a folder such as an export, or ``tiny``. Answers are printed; with ``--out`` they are also
written as JSON, as a page with pictures, and as labels in our JSONL to correct and train on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo_tune.errors import UserError
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import EvalSection, ImageSection, VideoSection
from molmo_tune.run_folder import RunFolder, write_json

if TYPE_CHECKING:
    from molmo_tune.encoding.items import MediaLimits
    from molmo_tune.evaluation.predict import Prediction


def run(options: argparse.Namespace) -> int:
    """Ask, print, and write where that was wished for."""
    missing = next((path for path in options.media if not path.exists()), None)
    if missing is not None:
        raise UserError(missing, "no such image, video or folder of frames")
    if options.out is not None and options.out.exists() and any(options.out.iterdir()):
        raise UserError(options.out, "is not empty", fix="choose another folder with --out")
    from rich.console import Console

    console = Console(soft_wrap=True)
    predictions = answer(options, console)
    for prediction in predictions:
        for record in prediction.to_json():
            cut = " (cut)" if record["is_cut"] else ""
            name = " ".join(record["media"])
            console.print(f"{name}: {record['question']}", highlight=False, markup=False)
            console.print(f"  {record['answer']}{cut}", highlight=False, markup=False)
    if options.out is not None:
        write(predictions, options.out, options.model)
        console.print(f"written: answers.json, answers.html, labels.jsonl in {options.out}")
    return 0


def answer(options: argparse.Namespace, console: Any) -> list[Prediction]:
    """Load the model and ask it everything."""
    from molmo_tune.commands.evaluate import ready_model
    from molmo_tune.evaluation.predict import media_of, predict
    from molmo_tune.model.loading import load_processor
    from molmo_tune.training.progress import progress_columns

    base, adapter, dtype, limits, max_new_tokens = _settings(options)
    processor = load_processor(base)
    model = ready_model(base, dtype, adapter).eval()
    media = media_of(options.media, together=options.together)
    with progress_columns(console) as progress:
        task = progress.add_task("asking", total=len(media) * len(options.ask), note="")
        return predict(
            model,
            processor,
            media,
            options.ask,
            limits,
            max_new_tokens=max_new_tokens,
            on_progress=lambda done: progress.advance(task, done),
        )


def _settings(
    options: argparse.Namespace,
) -> tuple[str, Path | None, Any, MediaLimits, int]:
    """Base, adapter, type, caps on media and on answers: the run's own, or the defaults."""
    from molmo_tune.encoding.items import MediaLimits
    from molmo_tune.encoding.sources import limits_of

    folder = RunFolder(Path(options.model))
    if folder.recipe.is_file():
        recipe = load_recipe(folder.recipe)
        base, adapter, dtype = recipe.model.name, folder.adapter, recipe.model.dtype
        limits, max_new_tokens = limits_of(recipe), recipe.eval.max_new_tokens
    else:
        video, image = VideoSection(), ImageSection()
        base, adapter, dtype = options.model, None, "auto"
        limits = MediaLimits(video.max_frames, video.max_fps, image.max_crops)
        max_new_tokens = EvalSection().max_new_tokens
    caps = {"max_frames": options.max_frames, "max_fps": options.max_fps}
    limits = replace(limits, **{name: cap for name, cap in caps.items() if cap is not None})
    return base, adapter, dtype, limits, options.max_new_tokens or max_new_tokens


def write(predictions: list[Prediction], out: Path, model: str) -> None:
    """The three files."""
    from molmo_tune.labels.jsonl import write_jsonl
    from molmo_tune.pages.answers import write_answers

    out.mkdir(parents=True, exist_ok=True)
    records = [record for prediction in predictions for record in prediction.to_json()]
    write_json(out / "answers.json", records)
    write_answers(predictions, out / "answers.html", model=model)
    write_jsonl([prediction.to_sample() for prediction in predictions], out / "labels.jsonl")
