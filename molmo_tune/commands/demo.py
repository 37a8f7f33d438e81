"""`molmo-tune demo`: the whole pipeline on a CPU in minutes, with the commands a user would type.

The demo writes a dataset from a domain that the bundled tiny base has never seen, as a user would
have it (mp4 clips, one CVAT XML each). Everything after that is what the other verbs do, called
through the same functions, in the same order.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo_tune.atomic_files import write_text
from molmo_tune.commands.arguments import seed
from molmo_tune.commands.console import new_console
from molmo_tune.errors import UserError, cannot_write, not_empty
from molmo_tune.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.encoding.items import Item
    from molmo_tune.evaluation.evaluate import Evaluation
    from molmo_tune.export.export import ExportResult
    from molmo_tune.recipe.sections import Recipe
    from molmo_tune.training.run_report import TrainingResult

HELP = "fine-tune the bundled tiny Molmo 2 on a small video dataset, start to end, on a CPU"
NUM_CLIPS = {"train": 400, "val": 64}
VAL_SEED_OFFSET = 1_000_000  # far from any training seed, so that no clip is in both splits
NUM_PREVIEWED = 12


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the folder and the seed."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo_out"),
        help="new folder for all results (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=7, help="seed of data and training (default: %(default)s)"
    )


@dataclass(slots=True)
class Steps:
    """Announces each step with its command and records its duration."""

    console: Console
    seconds: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, command: str) -> Iterator[None]:
        """Print the command, run the body and record the time."""
        from rich.text import Text

        self.console.rule(Text(name, style="bold"), align="left")
        if command:
            self.console.print(f"$ molmo-tune {command}", style="cyan", highlight=False)
        started = time.perf_counter()
        yield
        self.seconds.append((name, time.perf_counter() - started))


@dataclass(frozen=True, slots=True)
class _Results:
    """What the steps from evaluation to export produced."""

    items: list[Item]
    before: Evaluation
    trained: TrainingResult
    after: Evaluation
    exported: ExportResult


def run(options: argparse.Namespace) -> int:
    """Run the demo; exit code 0 if everything worked."""
    from molmo_tune.atomic_files import write_json
    from molmo_tune.pages.demo import write_demo_page

    started = time.perf_counter()
    console = new_console()
    out: Path = options.out
    _require_new(out)
    steps = Steps(console)
    recipe = _write_data(out, options.seed, steps)
    _look(recipe, out, steps)
    results = _tune(recipe, out, steps)
    report = _report(options.seed, results, steps)
    report["seconds"]["total"] = round(time.perf_counter() - started, 1)
    write_json(out / "report.json", report)
    write_demo_page(
        out / "report.html",
        results.items,
        results.before,
        results.after,
        results.trained,
        results.exported,
        steps.seconds,
    )
    _print_table(console, report, out)
    return 0


def _require_new(out: Path) -> None:
    try:
        if out.exists() and any(out.iterdir()):
            raise not_empty(out, "--out")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error


def _write_data(out: Path, seed: int, steps: Steps) -> Recipe:
    """Write clips with CVAT labels, convert them, and write the recipe that names them."""
    from molmo_tune.commands.convert import convert
    from molmo_tune.recipe.bundled import bundled
    from molmo_tune.recipe.loader import load_recipe
    from molmo_tune.recipe.saving import dump_recipe
    from molmo_tune.tiny.pond import write_pond
    from molmo_tune.training.callbacks.progress import progress_columns

    with steps.step("data", ""), progress_columns(steps.console) as progress:
        task = progress.add_task("filming the pond", total=sum(NUM_CLIPS.values()), note="")
        for split, num_clips in NUM_CLIPS.items():
            write_pond(
                out / "data" / split,
                num_clips=num_clips,
                seed=seed if split == "train" else seed + VAL_SEED_OFFSET,
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


def _look(recipe: Recipe, out: Path, steps: Steps) -> None:
    """Check and preview."""
    from molmo_tune.commands.check import check
    from molmo_tune.commands.preview import preview

    recipe_file, page = out / "recipe.yaml", out / "preview.html"
    with steps.step("check", f"check {recipe_file}"):
        if check(recipe, steps.console):
            raise UserError(recipe_file, "demo data failed the check")
    with steps.step("preview", f"preview {recipe_file} --out {page}"):
        preview(recipe, page, NUM_PREVIEWED)


def _tune(recipe: Recipe, out: Path, steps: Steps) -> _Results:
    """Evaluate the base, train, evaluate the run, export."""
    from molmo_tune.atomic_files import write_json
    from molmo_tune.commands.evaluate import evaluate_recipe, print_summary
    from molmo_tune.export.export import export_run
    from molmo_tune.training.run import train

    console, folder = steps.console, RunFolder(recipe.output.dir)
    with steps.step("before", f"evaluate {folder.root} --base"):
        before, items = evaluate_recipe(recipe, None, console, title="evaluating (before)")
        print_summary(console, "before", before)
    with steps.step("train", f"train {out / 'recipe.yaml'}"):
        trained = train(recipe, console)
        write_json(folder.evaluation("before"), before.to_json())
    with steps.step("after", f"evaluate {folder.root}"):
        title = "evaluating (after)"
        after, _ = evaluate_recipe(recipe, folder.adapter, console, title=title)
        write_json(folder.evaluation("after"), after.to_json())
        print_summary(console, "after", after)
    with steps.step("export and verify", f"export {folder.root} --out {out / 'export'}"):
        exported = export_run(folder, out / "export")
    return _Results(items, before, trained, after, exported)


def _report(seed: int, results: _Results, steps: Steps) -> dict[str, Any]:
    trained, exported = results.trained, results.exported
    tensors, verified = exported.tensors, exported.verification
    return {
        "seed": seed,
        "before": results.before.summary(),
        "after": results.after.summary(),
        "training": {
            "steps": trained.steps,
            "seconds": round(trained.seconds, 1),
            "trainable_share": trained.trainable_share,
            "first_loss": trained.losses[0][1],
            "final_loss": trained.losses[-1][1],
        },
        "export": {
            "folder": str(exported.folder),
            "max_logit_diff": verified.max_logit_diff,
            "tensors_merged": len(tensors.merged),
            "tensors_unchanged": len(tensors.unchanged),
            "equal_answers": verified.equal_answers,
            "answers": len(verified.answers),
        },
        "seconds": {name: round(seconds, 1) for name, seconds in steps.seconds},
    }


def _print_table(console: Console, report: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table(title="pointing at pond animals, held-out clips")
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("questions", "f1", "precision", "recall"):
        cells = (report[side][name] for side in ("before", "after"))
        table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in cells))
    console.print(table)
    console.print(
        f"export: logits differ by at most {report['export']['max_logit_diff']:.1e}\n"
        f"{report['seconds']['total']:.0f} s in total. Open {out / 'report.html'} "
        f"and {out / 'preview.html'}"
    )
