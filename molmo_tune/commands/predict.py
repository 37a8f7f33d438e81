"""`molmo-tune predict MODEL MEDIA… --ask QUESTION`: answers about media that nobody labeled.

The model is a run (its adapter on its base, with the run's caps on media), or a checkpoint: a hub
id, a folder such as an export, or ``tiny``. Answers are printed; with ``--out`` they are also
written as JSON, as a page with pictures, and as labels in our JSONL to correct and train on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo_tune.atomic_files import write_json
from molmo_tune.errors import UserError
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import EvalSection, ImageSection, VideoSection
from molmo_tune.run_folder import RunFolder

if TYPE_CHECKING:
    from molmo_tune.encoding.items import MediaLimits
    from molmo_tune.evaluation.predict import Prediction, PredictionRecord
    from molmo_tune.labels.sample import Sample
    from molmo_tune.pages.answers import Card
    from molmo_tune.templates.template import Template


def run(options: argparse.Namespace) -> int:
    """Ask, print, and write where that was wished for; exit code 1 where a medium does not open."""
    missing = next((path for path in options.media if not path.exists()), None)
    if missing is not None:
        raise UserError(missing, "no such image, video or folder of frames")
    _require_empty(options.out)
    from rich.console import Console

    from molmo_tune.pages.answers import answer_card

    console = Console(soft_wrap=True, markup=False)
    records: list[PredictionRecord] = []
    cards: list[Card] = []
    samples: list[Sample] = []
    faults: list[UserError] = []
    for answered in answers(options, console):
        if isinstance(answered, UserError):
            faults.append(answered)
            continue
        _print(answered, console)
        if options.out is not None:
            records += answered.to_json()
            cards.append(answer_card(answered))
            samples.append(answered.to_sample())
    if cards:
        _write(records, cards, samples, options)
        console.print(f"written: answers.json, answers.html, labels.jsonl in {options.out}")
    for fault in faults:
        console.print(f"not answered: {fault}", highlight=False)
    return 1 if faults else 0


def _require_empty(out: Path | None) -> None:
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(out, "is a file", "a new folder")
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise UserError(out, "is not empty", fix="choose another folder with --out")


def answers(options: argparse.Namespace, console: Any) -> Iterator[Prediction | UserError]:
    """Load the model and ask it everything."""
    from molmo_tune.commands.evaluate import ready_model
    from molmo_tune.evaluation.predict import media_of, predict
    from molmo_tune.model.loading import load_processor
    from molmo_tune.training.progress import progress_columns

    media = media_of(options.media, together=options.together)
    asking = _settings(options)
    processor = load_processor(asking.base)
    model = ready_model(asking.base, asking.dtype, asking.adapter).eval()
    with progress_columns(console) as progress:
        task = progress.add_task("asking", total=len(media), note="")
        for answered in predict(
            model,
            processor,
            media,
            options.ask,
            asking.limits,
            max_new_tokens=asking.max_new_tokens,
            template=asking.template,
        ):
            progress.advance(task)
            yield answered


def _print(prediction: Prediction, console: Any) -> None:
    for record in prediction.to_json():
        cut = " (cut)" if record["is_truncated"] else ""
        console.print(f"{' '.join(record['media'])}: {record['question']}", highlight=False)
        console.print(f"  {record['answer']}{cut}", highlight=False)


@dataclass(frozen=True, slots=True)
class _Asking:
    base: str
    adapter: Path | None
    dtype: Any
    limits: MediaLimits
    max_new_tokens: int
    template: Template | None = None


def _settings(options: argparse.Namespace) -> _Asking:
    """Caps on media and answers: the run's own, or the defaults; the command line goes before."""
    from molmo_tune.encoding.items import MediaLimits
    from molmo_tune.encoding.sources import limits_of
    from molmo_tune.templates.template import load_template

    folder = RunFolder(Path(options.model))
    longest = options.max_new_tokens
    if folder.recipe.is_file():
        recipe = load_recipe(folder.recipe)
        is_timed = recipe.video.sampling == "fps"
        return _Asking(
            recipe.model.name,
            folder.adapter,
            recipe.model.dtype,
            _capped(limits_of(recipe), options),
            longest or recipe.eval.max_new_tokens,
            load_template(recipe.data.train[0].template) if is_timed else None,
        )
    video, image = VideoSection(), ImageSection()
    limits = _capped(MediaLimits(video.max_frames, video.max_fps, image.max_crops), options)
    return _Asking(options.model, None, "auto", limits, longest or EvalSection().max_new_tokens)


def _capped(limits: MediaLimits, options: argparse.Namespace) -> MediaLimits:
    caps = {"max_frames": options.max_frames, "max_fps": options.max_fps}
    return replace(limits, **{name: cap for name, cap in caps.items() if cap is not None})


def _write(
    records: list[PredictionRecord],
    cards: list[Card],
    samples: list[Sample],
    options: argparse.Namespace,
) -> None:
    """The three files."""
    from molmo_tune.labels.formats.jsonl import write_jsonl
    from molmo_tune.pages.answers import write_answers

    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "answers.json", records)
    write_answers(cards, options.out / "answers.html", model=options.model)
    write_jsonl(samples, options.out / "labels.jsonl")
