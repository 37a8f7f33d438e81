"""`molmo-tune init FOLDER`: a recipe and a data template for the labels that lie in a folder.

The format is found by looking (`molmo_tune.labels.survey`), the labels are really read, and the
media folder is the nearest one with which least is lost. Where the folder has parts for training
and validation the recipe names them; else whole media are set apart, and both parts are written as
our JSONL. Nothing that exists is overwritten.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from molmo_tune.atomic_files import write_text
from molmo_tune.commands.init_wording import answer_tokens, fitting_templates
from molmo_tune.errors import UserError
from molmo_tune.labels.formats.jsonl import write_jsonl
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.report import ConversionReport
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.survey import Place, media_folders, survey
from molmo_tune.labels.tracks import unique
from molmo_tune.recipe.bundled import bundled

VAL_SHARE = 0.1  # of the media, when nothing says which are for validation
EPOCHS, MIN_STEPS, MAX_STEPS = 10, 100, 2000
_PER_STEP = 8  # accumulate_grad_batches below
_LABEL_FOLDERS = {"annotations", "labels", "masks", "gt", "instances"}
_RECIPE = """\
# Written by molmo-tune init for {title}.
# Next: molmo-tune check {recipe}, preview, train. Settings that are not named have their defaults
# (molmo-tune schema). The words of the questions are in {template}.
seed: 7
model: {{name: {model}}}         # a hub id, a folder, or tiny (a toy, to try things out)
adapter: {{method: lora, rank: 32, alpha: 64, dropout: 0.05, targets: [language]}}
data:
  train:                    # paths are relative to where the command is run
{train}
  val:{val}
  max_tokens: 16384
video: {{max_frames: 128, max_fps: 2}}
optim: {{lr: 1.0e-4, schedule: cosine, warmup_steps: {warmup_steps}}}
trainer: {{max_steps: {max_steps}, accumulate_grad_batches: 8, gradient_checkpointing: true}}
eval: {{max_questions: 64, max_new_tokens: {answer_tokens}, batch_size: 1}}
output: {{dir: {run}}}
"""


@dataclass(frozen=True, slots=True)
class _Source:
    labels: str
    path: Path
    media: Path | None
    samples: list[Sample]
    report: ConversionReport


def run(options: argparse.Namespace) -> int:
    """Look, write, and say what was found."""
    for line in init(options.folder, options.labels, options.to, options.model, options.template):
        sys.stdout.write(f"{line}\n")
    return 0


def init(
    folder: Path, labels: str | None, to: Path, model: str, wanted: str | None = None
) -> list[str]:
    """Write the recipe, its template and, if there are no parts yet, the two parts.

    Args:
        folder: with labels and media.
        labels: the format, where a folder has several.
        to: the folder that is written.
        model: for the recipe.
        wanted: a bundled data template; otherwise the likeliest that fits.

    Returns:
        What was found and written, line by line.

    Raises:
        UserError: no format or several, labels that cannot be read, a template that does not fit,
        or files that exist already.
    """
    name, places = survey(folder, labels)
    anywhere = media_folders(folder)
    sources = {
        place: _read(name, place.path, folder, anywhere)
        for place in places
        if place.split != "test"
    }
    if not sources:
        raise UserError(folder, "only labels of a test part", "labels to train on")
    template, others = _template(next(iter(sources.values())).samples, wanted)
    recipe, words = to / "recipe.yaml", to / f"{template}.yaml"
    train, val, parts = _parts(sources, to)
    _refuse_existing([recipe, words, *parts])
    to.mkdir(parents=True, exist_ok=True)
    for path, samples in parts.items():
        write_jsonl(samples, path)
    shutil.copyfile(bundled("data_templates", template), words)
    text = _RECIPE.format(
        title=f"{name} labels in {folder}",
        recipe=recipe,
        template=words,
        model=model,
        answer_tokens=answer_tokens(template),
        max_steps=(max_steps := _max_steps(train)),
        warmup_steps=max_steps // 10,
        train=_listed(train, words),
        val=f"\n{_listed(val, words)}" if val else " []                   # one medium only",
        run=_quoted(to / "run"),
    )
    write_text(recipe, text)
    written = [f"written: {path}" for path in (*parts, words, recipe)]
    more = f" (also possible with --template: {', '.join(others)})" if others else ""
    return [*_told(name, sources), f"task: {template}{more}", *written]


def _read(name: str, path: Path, top: Path, anywhere: list[Path]) -> _Source:
    """With the media folder, from the labels upwards, with which least is lost."""
    best: _Source | None = None
    fault: UserError | None = None
    for media in _media_folders(path, top, anywhere):
        try:
            samples, report = read_labels(name, path, media)
        except UserError as error:
            fault = error
            continue
        if best is None or report.num_dropped < best.report.num_dropped:
            best = _Source(name, path, media, samples, report)
        if not any("missing" in loss.reason for loss in report.dropped):
            break
    if best is None:
        assert fault is not None
        raise fault
    return best


def _media_folders(path: Path, top: Path, anywhere: list[Path]) -> list[Path | None]:
    """Where the media may be: as the labels say, by custom, further up, anywhere that has some."""
    start = path if path.is_dir() else path.parent
    upwards = [one for one in (start, *start.parents) if one.is_relative_to(top)]
    beside = [
        Path(*(("images" if part == "labels" else part) for part in start.parts)),
        top / "images" / start.name,
        start.parent / "images",
    ]
    exist = [one for one in beside if one.is_dir() and one != start]
    elsewhere = [one for one in anywhere if not _holds_labels(one, start, top)]
    return [None, *dict.fromkeys([*exist, *upwards, *elsewhere])]


def _holds_labels(folder: Path, start: Path, top: Path) -> bool:
    """Pictures of masks are no media."""
    if start != top and folder.is_relative_to(start):
        return True
    return any(part.lower() in _LABEL_FOLDERS for part in folder.relative_to(top).parts)


def _parts(
    sources: dict[Place, _Source], to: Path
) -> tuple[list[_Source], list[_Source], dict[Path, list[Sample]]]:
    """Sources of training and validation, and the files to write for them if need be."""
    val = [source for place, source in sources.items() if place.split == "val"]
    train = [source for place, source in sources.items() if place.split != "val"]
    if val and train:
        return train, val, {}
    taken: dict[str, int] = {}
    samples = [
        replace(sample, id=unique(sample.id, taken))
        for source in sources.values()
        for sample in source.samples
    ]
    kept, held_out = _set_apart(samples)
    if not held_out:
        return [*train, *val], [], {}
    files = {to / "train.jsonl": kept, to / "val.jsonl": held_out}
    report = next(iter(sources.values())).report
    made = [_Source("jsonl", path, None, part, report) for path, part in files.items()]
    return made[:1], made[1:], files


def _set_apart(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """By medium: questions about one clip must not stand on both sides.

    Samples of several images that share one belong together, too; texts have no medium.
    """
    groups = _connected(samples)
    names = sorted(set(groups))
    if len(names) < 2:
        return samples, []
    chosen = set(random.Random(7).sample(names, max(1, round(VAL_SHARE * len(names)))))
    parts: tuple[list[Sample], list[Sample]] = ([], [])
    for sample, group in zip(samples, groups, strict=True):
        parts[group in chosen].append(sample)
    return parts


def _connected(samples: list[Sample]) -> list[str]:
    """The group of each sample: those that are joined by media, directly or by way of others."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = name = leader[leader[name]]
        return name

    first = []
    for sample in samples:
        media = [str(path) for path in sample.media.paths] or [f"text {sample.id}"]
        first.append(media[0])
        for other in media[1:]:
            leader[find(other)] = find(media[0])
    return [find(name) for name in first]


def _template(samples: list[Sample], wanted: str | None) -> tuple[str, list[str]]:
    """The wording to take, and the others that fit."""
    fitting = fitting_templates(samples)
    if wanted is not None and wanted not in fitting:
        raise UserError("--template", f"{wanted!r} does not fit these labels", _either(fitting))
    name = wanted or fitting[0]
    return name, [other for other in fitting if other != name]


def _either(names: list[str]) -> str:
    return f"one of {', '.join(names)}"


def _max_steps(train: list[_Source]) -> int:
    """Some passes over the data, but enough steps to learn from little, and no endless runs."""
    num_samples = sum(len(source.samples) for source in train)
    return min(max(EPOCHS * num_samples // _PER_STEP, MIN_STEPS), MAX_STEPS)


def _refuse_existing(paths: list[Path]) -> None:
    for path in paths:
        if path.exists():
            raise UserError(path, "exists already", fix="choose another folder with --to")


def _listed(sources: list[_Source], template: Path) -> str:
    return "\n".join(
        f"    - {{format: {one.labels}, path: {_quoted(one.path)}, "
        + (f"media: {_quoted(one.media)}, " if one.media else "")
        + f"template: {_quoted(template)}}}"
        for one in sources
    )


def _quoted(path: Path | str) -> str:
    """A path as YAML text, in quotes where its signs would mean something."""
    return yaml.safe_dump(str(path), default_style='"', width=10_000, allow_unicode=True).strip()


def _told(name: str, sources: dict[Place, _Source]) -> list[str]:
    lines = []
    for place, source in sources.items():
        part = f" ({place.split})" if place.split else ""
        lost = (
            f", {source.report.num_dropped} annotations lost" if source.report.num_dropped else ""
        )
        lines.append(f"{name}: {place.path}{part}: {len(source.samples)} samples{lost}")
    return lines
