"""`molmo-tune evaluate RUN`: the validation questions, answered and scored."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo_tune.commands.console import new_console
from molmo_tune.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.choices import Dtype
    from molmo_tune.encoding.items import Item
    from molmo_tune.evaluation.evaluate import Evaluation
    from molmo_tune.recipe.sections import Recipe

HELP = "score a run (or its base) on the validation questions"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the run, and what to evaluate in its place."""
    parser.add_argument("run", type=Path, help="run folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--base", action="store_true", help="the base model, without the adapter")
    which.add_argument(
        "--model", metavar="NAME", help="another checkpoint, such as an export: folder or hub id"
    )
    parser.add_argument("--name", help="result name (default: before, after or model name)")


def run(options: argparse.Namespace) -> int:
    """Evaluate a run, its base (`--base`) or another checkpoint (`--model`)."""
    from molmo_tune.atomic_files import write_json
    from molmo_tune.recipe.loader import load_recipe
    from molmo_tune.run_folder import RunFolder

    folder = RunFolder(options.run)
    folder.require()
    recipe = load_recipe(folder.recipe)
    console = new_console()
    if options.model:
        recipe = with_model(recipe, options.model)
    adapter = None if options.base or options.model else folder.adapter
    default = "before" if options.base else "after"
    name = options.name or (Path(options.model).name if options.model else default)
    result, _ = evaluate_recipe(recipe, adapter, console, title=f"evaluating ({name})")
    write_json(folder.evaluation(name), result.to_json())
    print_summary(console, name, result)
    console.print(f"all answers: {folder.evaluation(name)}")
    return 0


def with_model(recipe: Recipe, name: str) -> Recipe:
    """Return the same recipe for another checkpoint."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": name})})


def evaluate_recipe(
    recipe: Recipe, adapter: Path | None, console: Console, *, title: str
) -> tuple[Evaluation, list[Item]]:
    """Answer and score the recipe's validation questions, with a progress bar.

    Args:
        recipe: resolved.
        adapter: adapter folder of a run; None evaluates the base.
        console: for the progress bar.
        title: of the progress bar.

    Raises:
        UserError: the recipe has no validation data, or the data or the checkpoint cannot be used.
    """
    from molmo_tune.encoding.sources import limits_of, read_items
    from molmo_tune.evaluation.evaluate import evaluate, num_questions
    from molmo_tune.model.loading import load_processor
    from molmo_tune.training.callbacks.progress import progress_columns

    if not recipe.data.val:
        raise UserError("data.val", "is empty", "validation data")
    processor = load_processor(recipe.model.name)
    items, refused = read_items(recipe.data.val, recipe, processor)
    model = load_ready_model(recipe.model.name, recipe.model.dtype, adapter)
    limit = recipe.eval.max_questions
    with progress_columns(console) as progress:
        task = progress.add_task(title, total=num_questions(items, limit), note="")
        result = evaluate(
            model,
            processor,
            items,
            limits_of(recipe),
            max_new_tokens=recipe.eval.max_new_tokens,
            batch_size=recipe.eval.batch_size,
            max_questions=limit,
            on_progress=lambda done: progress.advance(task, done),
        )
    skipped = tuple(f"{one.sample_id}: {one.reason}" for one in refused)
    return replace(result, skipped=skipped + result.skipped), items


def load_ready_model(name: str, dtype: Dtype, adapter: Path | None) -> Any:
    """Load a checkpoint, apply an adapter if given, and move it to the GPU if there is one.

    Raises:
        UserError: the checkpoint or the adapter cannot be used.
    """
    import torch

    from molmo_tune.model.adapters import bare_model, load_adapter
    from molmo_tune.model.loading import load_model, resolve_dtype

    model: Any = load_model(name, dtype=resolve_dtype(dtype))
    if adapter is not None:
        model = bare_model(load_adapter(model, adapter))
    return model.to("cuda") if torch.cuda.is_available() else model


def print_summary(console: Console, name: str, result: Evaluation) -> None:
    """Print one line for all questions, one per label, and what was skipped."""
    from molmo_tune.training.callbacks.media_monitor import LISTED

    summary = result.summary()
    for label, row in (("all", summary), *summary["labels"].items()):
        if row.get("unscored") == row["questions"]:
            score = "not scored automatically"
        else:
            score = f"F1 {row['f1']:.3f} [{row['f1_low']:.3f}, {row['f1_high']:.3f}]"
        questions = "question" if row["questions"] == 1 else "questions"
        line = f"{name:<10}{label or '-':<20}{score}  {row['questions']} {questions}"
        console.print(line, highlight=False)
    metrics = {key for record in result.records for key in record.score.more}
    extra = [f"{key} {value:.3f}" for key, value in summary.items() if key in metrics]
    if extra:
        console.print(f"{name:<10}{'all':<20}{', '.join(extra)}", highlight=False)
    if summary["truncated_fraction"]:
        percent = 100 * summary["truncated_fraction"]
        console.print(f"{percent:.0f}% of the answers hit eval.max_new_tokens", highlight=False)
    if result.skipped:
        console.print(f"{len(result.skipped)} questions or media skipped:", highlight=False)
    for reason in result.skipped[:LISTED]:
        console.print(f"  {reason}", highlight=False)
    if len(result.skipped) > LISTED:
        more = len(result.skipped) - LISTED
        console.print(f"  and {more} more, all listed in the results file", highlight=False)
