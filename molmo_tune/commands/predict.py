"""`molmo-tune predict MODEL MEDIA… --ask QUESTION`: answers about unlabeled media.

The model is a run (its adapter on its base, with the run's limits on media) or a checkpoint: a hub
id, a folder such as an export, or ``tiny``. Answers are printed; with ``--out`` they are also
written as JSON, as a page that shows the points, and as labels in our JSONL to correct and train
on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from molmo_tune.commands.arguments import fps, positive_int
from molmo_tune.commands.console import new_console
from molmo_tune.errors import UserError, not_empty
from molmo_tune.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.choices import Dtype
    from molmo_tune.encoding.items import MediaLimits
    from molmo_tune.evaluation.predict import Prediction, PredictionRecord
    from molmo_tune.labels.sample import Sample
    from molmo_tune.pages.answers import Card
    from molmo_tune.templates.template import Template

HELP = "ask a run or checkpoint about images and videos, and draw its points"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add model, media, questions, output and limits."""
    parser.add_argument("model", help="run folder, checkpoint folder, hub id, or tiny")
    parser.add_argument("media", type=Path, nargs="+", help="images, videos, folders of frames")
    parser.add_argument(
        "--ask", action="append", required=True, metavar="QUESTION", help="question; repeatable"
    )
    parser.add_argument("--together", action="store_true", help="all images in one question")
    parser.add_argument(
        "--out", type=Path, help="new folder for answers.json, answers.html and labels.jsonl"
    )
    own = "(default: as in the run)"
    parser.add_argument(
        "--max-frames", type=positive_int, metavar="N", help=f"maximum frames per video {own}"
    )
    parser.add_argument(
        "--max-fps", type=fps, metavar="FPS", help=f"maximum frames per second of video {own}"
    )
    parser.add_argument(
        "--max-new-tokens", type=positive_int, metavar="N", help=f"maximum tokens per answer {own}"
    )


@dataclass(slots=True)
class _Results:
    """What `--out` will get."""

    records: list[PredictionRecord] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def run(options: argparse.Namespace) -> int:
    """Print the answers and write them to `--out`; exit code 1 if media do not open."""
    _require_usable(options)
    from molmo_tune.pages.answers import answer_card

    console = new_console()
    results = _Results()
    errors: list[UserError] = []
    for prediction in predictions(options, console):
        if isinstance(prediction, UserError):
            errors.append(prediction)
            continue
        _print(prediction, console)
        if options.out is not None:
            results.records += prediction.to_json()
            results.cards.append(answer_card(prediction))
            results.samples.append(prediction.to_sample())
    if results.cards:
        _write(results, options)
        console.print(f"wrote answers.json, answers.html and labels.jsonl to {options.out}")
    for error in errors:
        console.print(f"skipped: {error}")
    return 1 if errors else 0


def _require_usable(options: argparse.Namespace) -> None:
    missing = next((path for path in options.media if not path.exists()), None)
    if missing is not None:
        raise UserError(missing, "no such image, video or folder of frames")
    out: Path | None = options.out
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(out, "is a file", "a new folder")
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise not_empty(out, "--out")


def predictions(options: argparse.Namespace, console: Console) -> Iterator[Prediction | UserError]:
    """Load the model and yield the answers about each media file, or why it does not open."""
    from molmo_tune.commands.evaluate import load_ready_model
    from molmo_tune.evaluation.predict import media_of, predict
    from molmo_tune.model.loading import load_processor
    from molmo_tune.training.callbacks.progress import progress_columns

    media = media_of(options.media, together=options.together)
    settings = _settings(options)
    processor = load_processor(settings.base)
    model = load_ready_model(settings.base, settings.dtype, settings.adapter).eval()
    with progress_columns(console) as progress:
        task = progress.add_task("predicting", total=len(media), note="")
        for prediction in predict(
            model,
            processor,
            media,
            options.ask,
            settings.limits,
            max_new_tokens=settings.max_new_tokens,
            template=settings.template,
        ):
            progress.advance(task)
            yield prediction


def _print(prediction: Prediction, console: Console) -> None:
    for record in prediction.to_json():
        cut = " (cut at --max-new-tokens)" if record["is_truncated"] else ""
        console.print(f"{' '.join(record['media'])}: {record['question']}")
        console.print(f"  {record['answer']}{cut}")


@dataclass(frozen=True, slots=True)
class _Settings:
    base: str
    adapter: Path | None
    dtype: Dtype
    limits: MediaLimits
    max_new_tokens: int
    template: Template | None = None


def _settings(options: argparse.Namespace) -> _Settings:
    """The run's own limits on media and answers, or the defaults; options take precedence."""
    from molmo_tune.encoding.items import MediaLimits
    from molmo_tune.encoding.sources import limits_of
    from molmo_tune.recipe.loader import load_recipe
    from molmo_tune.recipe.sections import EvalSection, ImageSection, VideoSection
    from molmo_tune.templates.template import load_template

    folder = RunFolder(Path(options.model))
    max_new_tokens = options.max_new_tokens
    if folder.recipe.is_file():
        recipe = load_recipe(folder.recipe)
        is_timed = recipe.video.sampling == "fps"
        return _Settings(
            recipe.model.name,
            folder.adapter,
            recipe.model.dtype,
            _limited(limits_of(recipe), options),
            max_new_tokens or recipe.eval.max_new_tokens,
            load_template(recipe.data.train[0].template) if is_timed else None,
        )
    video, image = VideoSection(), ImageSection()
    limits = _limited(MediaLimits(video.max_frames, video.max_fps, image.max_crops), options)
    max_new_tokens = max_new_tokens or EvalSection().max_new_tokens
    return _Settings(options.model, None, "auto", limits, max_new_tokens)


def _limited(limits: MediaLimits, options: argparse.Namespace) -> MediaLimits:
    given = {"max_frames": options.max_frames, "max_fps": options.max_fps}
    return replace(limits, **{name: limit for name, limit in given.items() if limit is not None})


def _write(results: _Results, options: argparse.Namespace) -> None:
    """Write the three files."""
    from molmo_tune.atomic_files import write_json
    from molmo_tune.labels.formats.jsonl import write_jsonl
    from molmo_tune.pages.answers import write_answers

    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "answers.json", results.records)
    write_answers(results.cards, options.out / "answers.html", model=options.model)
    write_jsonl(results.samples, options.out / "labels.jsonl")
