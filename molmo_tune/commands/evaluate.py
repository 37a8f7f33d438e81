"""`molmo-tune evaluate RUN`: the validation questions, answered and scored."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from molmo_tune.atomic_files import write_json
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import Evaluation, evaluate, num_questions
from molmo_tune.model.adapters import bare_model, load_adapter
from molmo_tune.model.loading import load_model, load_processor, resolve_dtype
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.media_monitor import LISTED
from molmo_tune.training.progress import progress_columns

_ALWAYS = {
    *(
        "questions",
        "f1",
        "f1_low",
        "f1_high",
        "precision",
        "recall",
        "truncated_fraction",
        "unscored",
    ),
    *("labels", "tasks", "skipped"),
}
"""Keys of a summary that every task has; the others are what a task has besides."""


def run(options: argparse.Namespace) -> int:
    """Evaluate a run, its base (`--base`) or another checkpoint (`--model`)."""
    folder = RunFolder(options.run)
    folder.require()
    recipe = load_recipe(folder.recipe)
    console = Console(soft_wrap=True, markup=False)
    if options.model:
        recipe = with_model(recipe, options.model)
    adapter = None if options.base or options.model else folder.adapter
    default = "before" if options.base else "after"
    name = options.name or (Path(options.model).name if options.model else default)
    result, _ = evaluate_recipe(recipe, adapter, console, title=f"evaluating ({name})")
    write_json(folder.evaluation(name), result.to_json())
    print_summary(console, name, result)
    console.print(f"all answers: {folder.evaluation(name)}", highlight=False)
    return 0


def with_model(recipe: Recipe, name: str) -> Recipe:
    """The same recipe on another checkpoint."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": name})})


def evaluate_recipe(
    recipe: Recipe, adapter: Path | None, console: Console, *, title: str
) -> tuple[Evaluation, list[Item]]:
    """Answers to the recipe's validation questions, with a progress bar.

    Raises:
        UserError: the recipe names no validation data, or they cannot be used.
    """
    if not recipe.data.val:
        raise UserError("data.val", "is empty", "validation data to ask about")
    processor = load_processor(recipe.model.name)
    items, refused = read_items(recipe.data.val, recipe, processor)
    model = ready_model(recipe.model.name, recipe.model.dtype, adapter)
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
    unread = tuple(f"{one.sample_id}: {one.reason}" for one in refused)
    return replace(result, skipped=unread + result.skipped), items


def ready_model(name: str, dtype: Any, adapter: Path | None) -> Any:
    """A checkpoint, with an adapter on top if there is one, on the GPU if there is one.

    Raises:
        UserError: either cannot be used.
    """
    import torch

    model: Any = load_model(name, dtype=resolve_dtype(dtype))
    if adapter is not None:
        model = bare_model(load_adapter(model, adapter))
    return model.to("cuda") if torch.cuda.is_available() else model


def print_summary(console: Console, name: str, result: Evaluation) -> None:
    """One line for all questions and one per label, and what was left out."""
    summary = result.summary()
    rows = [("all", summary), *summary["labels"].items()]
    for label, row in rows:
        asked = f"{row['questions']} questions"
        if row.get("unscored") == row["questions"]:
            score = "not scored automatically"
        else:
            score = f"F1 {row['f1']:.3f} [{row['f1_low']:.3f}, {row['f1_high']:.3f}]"
        console.print(f"{name:<10}{label or '-':<20}{score}  {asked}", highlight=False)
    more = [f"{key} {value:.3f}" for key, value in summary.items() if key not in _ALWAYS]
    if more:
        console.print(f"{name:<10}{'all':<20}{', '.join(more)}", highlight=False)
    if summary["truncated_fraction"]:
        console.print(
            f"{100 * summary['truncated_fraction']:.0f} % of the answers hit eval.max_new_tokens",
            highlight=False,
        )
    if result.skipped:
        console.print(f"{len(result.skipped)} samples were left out:", highlight=False)
    for reason in result.skipped[:LISTED]:
        console.print(f"  {reason}", highlight=False)
    if len(result.skipped) > LISTED:
        console.print(f"  and {len(result.skipped) - LISTED} more, all beside the answers")
