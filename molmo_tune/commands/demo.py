"""`molmo-tune demo`: the whole road on a CPU in minutes, with the commands a user would type.

A data set of a domain that the bundled tiny base has never seen is written to disk as a user would
have it (mp4 clips, one CVAT XML each). Everything after that is what the other verbs do, called
through the same functions, in the order of real work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from molmo_tune.atomic_files import write_json, write_text
from molmo_tune.commands.check import check
from molmo_tune.commands.convert import convert
from molmo_tune.commands.evaluate import evaluate_recipe, print_summary
from molmo_tune.commands.preview import preview
from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import Evaluation
from molmo_tune.export.export import ExportResult, export_run
from molmo_tune.pages.demo import write_demo_page
from molmo_tune.recipe.bundled import bundled
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.saving import dump_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.tiny.pond import write_pond
from molmo_tune.training.progress import progress_columns
from molmo_tune.training.run import train
from molmo_tune.training.run_report import TrainingResult

NUM_CLIPS = {"train": 400, "val": 64}
VAL_SEED_OFFSET = 1_000_000  # far from any training seed, so that no clip is drawn twice
PREVIEWED = 12


@dataclass(slots=True)
class Steps:
    """Announces each step with its command and keeps the times."""

    console: Console
    seconds: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, command: str) -> Iterator[None]:
        """Print the command, run the body, note the time."""
        self.console.rule(Text(name, style="bold"), align="left")
        if command:
            self.console.print(f"$ molmo-tune {command}", style="cyan", highlight=False)
        started = time.perf_counter()
        yield
        self.seconds.append((name, time.perf_counter() - started))


def run(options: argparse.Namespace) -> int:
    """Run the demo; exit code 0 when everything worked."""
    started = time.perf_counter()
    console = Console(soft_wrap=True, markup=False)
    out: Path = options.out
    _require_new(out)
    steps = Steps(console)
    recipe = _write_data(out, options.seed, steps)
    recipe_file = out / "recipe.yaml"
    with steps.step("check", f"check {recipe_file}"):
        if check(recipe, console):
            raise UserError(recipe_file, "the demo's own data do not pass the check")
    with steps.step("preview", f"preview {recipe_file} --out {out / 'preview.html'}"):
        preview(recipe, out / "preview.html", PREVIEWED)
    run_folder = RunFolder(recipe.output.dir)
    with steps.step("before", f"evaluate {run_folder.root} --base"):
        before, items = evaluate_recipe(recipe, None, console, title="asking the base")
        print_summary(console, "before", before)
    with steps.step("train", f"train {recipe_file}"):
        trained = train(recipe, console)
        write_json(run_folder.evaluation("before"), before.to_json())
    with steps.step("after", f"evaluate {run_folder.root}"):
        after, _ = evaluate_recipe(
            recipe, run_folder.adapter, console, title="asking the fine-tune"
        )
        write_json(run_folder.evaluation("after"), after.to_json())
        print_summary(console, "after", after)
    with steps.step("export and verify", f"export {run_folder.root} --out {out / 'export'}"):
        exported = export_run(run_folder, out / "export")
    report = _report(options.seed, before, after, trained, exported, steps)
    report["seconds"]["total"] = round(time.perf_counter() - started, 1)
    write_json(out / "report.json", report)
    write_demo_page(out / "report.html", items, before, after, trained, exported, steps.seconds)
    _print_table(console, report, out)
    return 0


def _require_new(out: Path) -> None:
    try:
        if out.exists() and any(out.iterdir()):
            raise UserError(
                out, "exists and is not empty", "a new folder", "choose another with --out"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(out, f"cannot be written ({error.strerror})") from error


def _write_data(out: Path, seed: int, steps: Steps) -> Recipe:
    """Clips and CVAT labels, converted; the recipe that names them."""
    with steps.step("data", ""), progress_columns(steps.console) as progress:
        task = progress.add_task("filming the pond", total=sum(NUM_CLIPS.values()), note="")
        for split, num_clips in NUM_CLIPS.items():
            split_seed = seed if split == "train" else seed + VAL_SEED_OFFSET
            write_pond(
                out / "data" / split,
                num_clips=num_clips,
                seed=split_seed,
                on_clip=lambda: progress.advance(task),
            )
    for split in NUM_CLIPS:
        data, target = out / "data" / split, out / f"{split}.jsonl"
        command = f"convert {data / 'labels'} --media {data / 'clips'} --out {target}"
        with steps.step(f"convert ({split})", command):
            convert(data / "labels", None, data / "clips", target, steps.console)
    overrides = [
        f"seed={seed}",
        f"data.train.0.path={out / 'train.jsonl'}",
        f"data.val.0.path={out / 'val.jsonl'}",
        f"output.dir={out / 'run'}",
    ]
    recipe = load_recipe(bundled("recipes", "demo"), overrides)
    write_text(out / "recipe.yaml", dump_recipe(recipe))
    return recipe


def _report(
    seed: int,
    before: Evaluation,
    after: Evaluation,
    trained: TrainingResult,
    exported: ExportResult,
    steps: Steps,
) -> dict[str, Any]:
    return {
        "seed": seed,
        "before": before.summary(),
        "after": after.summary(),
        "training": {
            "steps": trained.steps,
            "seconds": round(trained.seconds, 1),
            "trainable_share": trained.trainable_share,
            "first_loss": trained.losses[0][1],
            "final_loss": trained.losses[-1][1],
        },
        "export": {
            "folder": str(exported.folder),
            "max_logit_diff": exported.verification.max_logit_diff,
            "tensors_merged": len(exported.tensors.merged),
            "tensors_unchanged": len(exported.tensors.unchanged),
            "equal_answers": exported.verification.equal_answers,
            "answers": len(exported.verification.answers),
        },
        "seconds": {name: round(seconds, 1) for name, seconds in steps.seconds},
    }


def _print_table(console: Console, report: dict[str, Any], out: Path) -> None:
    table = Table(title="pointing at pond animals, held-out clips")
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("questions", "f1", "precision", "recall"):
        cells = (report[side][name] for side in ("before", "after"))
        table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in cells))
    console.print(table)
    console.print(
        f"export: logits differ by at most {report['export']['max_logit_diff']:.1e}\n"
        f"{report['seconds']['total']:.0f} s in all. Look at {out / 'report.html'} "
        f"and {out / 'preview.html'}",
        highlight=False,
    )
