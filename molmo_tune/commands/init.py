"""`molmo-tune init FOLDER`: a recipe and a data template for the labels in a folder.

The format is detected (`molmo_tune.labels.survey`), the labels are read for real, and the media
folder is the nearest one that drops the fewest annotations. If the folder has training and
validation splits, the recipe names them; otherwise whole media files are held out and both splits
are written as our JSONL. Existing files are never overwritten.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from molmo_tune.errors import UserError, already_exists

if TYPE_CHECKING:
    from molmo_tune.commands.init_sources import Source
    from molmo_tune.labels.sample import Sample
    from molmo_tune.labels.survey import Place

HELP = "write a recipe and a data template for a folder of labels"
EPOCHS, MIN_STEPS, MAX_STEPS = 10, 100, 2000
_PER_STEP = 8  # accumulate_grad_batches below
_RECIPE = """\
# Written by molmo-tune init for {title}.
# Next: molmo-tune check {recipe}, then preview and train. Omitted settings use their defaults
# (molmo-tune schema). The questions are worded in {template}.
seed: 7
model: {{name: {model}}}         # hub id, folder, or tiny (the bundled model)
adapter: {{method: lora, rank: 32, alpha: 64, dropout: 0.05, targets: [language]}}
data:
  train:                    # paths are relative to the working directory
{train}
  val:{val}
  max_tokens: 16384
video: {{max_frames: 128, max_fps: 2}}
optim: {{lr: 1.0e-4, schedule: cosine, warmup_steps: {warmup_steps}}}
trainer: {{max_steps: {max_steps}, accumulate_grad_batches: 8, gradient_checkpointing: true}}
eval: {{max_questions: 64, max_new_tokens: {max_new_tokens}, batch_size: 1}}
output: {{dir: {run}}}
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the folder and what can be chosen."""
    parser.add_argument("folder", type=Path, help="folder with labels and their media")
    parser.add_argument(
        "--labels",
        metavar="FORMAT",
        help="label format (default: detect)",
    )
    parser.add_argument(
        "--template", metavar="NAME", help="bundled data template (default: the likeliest)"
    )
    parser.add_argument(
        "--to", type=Path, default=Path(), help="folder to write to (default: current)"
    )
    parser.add_argument(
        "--model",
        default="allenai/Molmo2-4B",
        help="hub id, folder, or tiny (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the files and print what was found."""
    for line in init(options.folder, options.labels, options.to, options.model, options.template):
        sys.stdout.write(f"{line}\n")
    return 0


def init(
    folder: Path, label_format: str | None, to: Path, model: str, template: str | None = None
) -> list[str]:
    """Write the recipe, its template and, if the folder has no splits, the two splits.

    Args:
        folder: folder with labels and media.
        label_format: name of the format; detected when None.
        to: folder to write to.
        model: base model of the recipe.
        template: bundled data template; the likeliest one that fits when None.

    Returns:
        What was found and written, line by line.

    Raises:
        UserError: no format or several, labels that cannot be read, a template that does not fit,
            or existing files.
    """
    from molmo_tune.commands.init_sources import read_sources, split_sources
    from molmo_tune.commands.init_templates import max_answer_tokens
    from molmo_tune.labels.formats.jsonl import write_jsonl
    from molmo_tune.recipe.bundled import bundled

    sources = read_sources(folder, label_format)
    first = next(iter(sources.values()))
    name, others = _choose_template(first.samples, template)
    recipe_file, template_file = to / "recipe.yaml", to / f"{name}.yaml"
    splits = split_sources(sources, to)
    for path in (recipe_file, template_file, *splits.files):
        if path.exists():
            raise already_exists(path, "--to")
    to.mkdir(parents=True, exist_ok=True)
    for path, samples in splits.files.items():
        write_jsonl(samples, path)
    shutil.copyfile(bundled("data_templates", name), template_file)
    val = f"\n{_entries(splits.val, template_file)}" if splits.val else " []   # one media file"
    max_steps = _max_steps(splits.train)
    text = _RECIPE.format(
        title=f"{first.format} labels in {folder}",
        recipe=recipe_file,
        template=template_file,
        model=model,
        max_new_tokens=max_answer_tokens(name),
        max_steps=max_steps,
        warmup_steps=max_steps // 10,
        train=_entries(splits.train, template_file),
        val=val,
        run=_quoted(to / "run"),
    )
    recipe_file.write_text(text, encoding="utf-8")
    more = f" (other --template choices: {', '.join(others)})" if others else ""
    return [
        *(_summary(place, source) for place, source in sources.items()),
        f"task: {name}{more}",
        *(f"wrote {path}" for path in (*splits.files, template_file, recipe_file)),
    ]


def _choose_template(samples: list[Sample], given: str | None) -> tuple[str, list[str]]:
    """Return the template to use, and the others that fit."""
    from molmo_tune.commands.init_templates import fitting_templates

    fitting = fitting_templates(samples)
    if given is not None and given not in fitting:
        expected = f"one of {', '.join(fitting)}"
        raise UserError("--template", f"{given!r} does not fit these labels", expected)
    name = given or fitting[0]
    return name, [other for other in fitting if other != name]


def _max_steps(train: list[Source]) -> int:
    """Several epochs, but enough steps to learn from few samples, and an end for many."""
    num_samples = sum(len(source.samples) for source in train)
    return min(max(EPOCHS * num_samples // _PER_STEP, MIN_STEPS), MAX_STEPS)


def _entries(sources: list[Source], template: Path) -> str:
    return "\n".join(
        f"    - {{format: {one.format}, path: {_quoted(one.path)}, "
        + (f"media: {_quoted(one.media)}, " if one.media else "")
        + f"template: {_quoted(template)}}}"
        for one in sources
    )


def _quoted(path: Path) -> str:
    """A path as YAML text, always in quotes: some characters would mean something without."""
    import yaml

    return yaml.safe_dump(str(path), default_style='"', width=10_000, allow_unicode=True).strip()


def _summary(place: Place, source: Source) -> str:
    split = f" ({place.split})" if place.split else ""
    num_dropped = source.report.num_dropped
    dropped = f", {num_dropped} annotations dropped" if num_dropped else ""
    return f"{source.format}: {place.path}{split}: {len(source.samples)} samples{dropped}"
