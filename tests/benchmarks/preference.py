"""Does preference training help on the demo's pond? ``python tests/benchmarks/preference.py``.

A supervised run of the demo's recipe (150 steps, or the second argument) is trained further in five
ways, each for 100 steps at a learning rate of 1e-3, and evaluated on 256 held-out clips.
Differences from that run are computed question by question, with a 95% bootstrap interval. Figures
go to ``results/preference.json``.

    pairs               as shipped: two sampled answers, the better against the worse
    pairs_alone         the same without the chosen answer's cross-entropy
    labels_words        the labels' own words against sampled answers below F1 0.8
    likeliest           the same with greedy answers
    supervised          the control: no pairs, more supervised training

One tiny model and one seed per call (the first argument, default 7): enough to show that kinds of
pairs differ, but no promise for a real model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))

from molmo_tune.commands.evaluate import evaluate_recipe
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.sources import read_items
from molmo_tune.errors import UserError
from molmo_tune.evaluation.evaluate import Evaluation, question_batches
from molmo_tune.evaluation.generation import generate_answers
from molmo_tune.evaluation.rewards import reward
from molmo_tune.grounding.pointing import mean_with_interval
from molmo_tune.model.adapters import save_adapter
from molmo_tune.model.loading import load_processor
from molmo_tune.preference.pairs import Mined, Pair
from molmo_tune.recipe.bundled import bundled
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.tiny.pond import write_pond
from molmo_tune.training.batches.data_module import build_data_module, dataset_options
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import optim_settings
from molmo_tune.training.preference import pairing
from molmo_tune.training.prepare_model import build_model
from molmo_tune.training.run import train

RESULTS = Path(__file__).parent / "results" / "preference.json"
QUIET = Console(quiet=True)
BELOW_F1 = 0.8


def run(seed: int, num_steps: int) -> dict[str, Any]:
    """F1 and differences by name, for one seed and length of the first run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, num_clips, offset in (("train", 400, 0), ("val", 256, 1_000_000)):
            write_pond(folder / split, num_clips=num_clips, seed=seed + offset, on_clip=_nothing)
        begun = recipe_of(folder, seed, "begun", f"trainer.max_steps={num_steps}")
        train(begun, QUIET)
        scores = {"begun": evaluated(begun)}
        shipped = pairing.mine
        for way, weight, mine in (
            ("pairs", 1, shipped),
            ("pairs_alone", 0, shipped),
            ("labels_words", 1, against_labels(is_sampled=True)),
            ("likeliest", 1, against_labels(is_sampled=False)),
        ):
            pairing.mine = mine  # type: ignore[assignment]
            recipe = further_recipe(folder, seed, way, weight)
            train(recipe, QUIET)
            scores[way] = evaluated(recipe)
            print(way, figures_of(scores, way), flush=True)
        scores["supervised"] = supervised(further_recipe(folder, seed, "supervised", 1))
        return {way: figures_of(scores, way) for way in scores}


def recipe_of(folder: Path, seed: int, name: str, *overrides: str) -> Recipe:
    """The demo's recipe on other clips."""
    sources = [
        f"data.{split}=[{{format: cvat_video, path: {folder / split / 'labels'}, "
        f"media: {folder / split / 'clips'}, template: video_pointing}}]"
        for split in ("train", "val")
    ]
    more = [f"seed={seed}", "eval.max_questions=10000", f"output.dir={folder / name}", *overrides]
    return load_recipe(bundled("recipes", "demo"), [*sources, *more])


def further_recipe(folder: Path, seed: int, name: str, supervised_weight: float) -> Recipe:
    """The demo's recipe with the first run's adapter trained further."""
    return recipe_of(
        folder,
        seed,
        name,
        f"preference={{from_run: {folder / 'begun'}, supervised_weight: {supervised_weight}}}",
        "trainer.max_steps=100",
        "optim.lr=1e-3",
        "optim.warmup_steps=5",
    )


def evaluated(recipe: Recipe) -> list[float]:
    """F1 of every held-out question."""
    adapter = RunFolder(recipe.output.dir).adapter
    return f1s(evaluate_recipe(recipe, adapter, QUIET, title="")[0])


def f1s(evaluation: Evaluation) -> list[float]:
    """F1 in the order of the questions."""
    return [record.score.f1 for record in evaluation.records]


def figures_of(scores: dict[str, list[float]], way: str) -> dict[str, Any]:
    """The mean, and the difference from the first run with its interval."""
    gained = mean_with_interval(np.subtract(scores[way], scores["begun"]))
    figures = {"f1": np.mean(scores[way]), "gained": gained.mean}
    figures |= {"gained_low": gained.low, "gained_high": gained.high}
    return {name: round(float(value), 4) for name, value in figures.items()} | {
        "questions": len(scores[way])
    }


def against_labels(*, is_sampled: bool) -> Callable[..., Any]:
    """Another kind of pairs: the labels' words against wrong answers."""

    def fail(_item: Item, error: UserError) -> None:
        raise error

    def mine(
        model: Any, processor: Any, items: Sequence[Item], limits: Any, settings: Any, *_: Any
    ) -> Any:
        pairs: list[Pair] = []
        model.eval()
        batches = question_batches(items, processor, limits, settings.batch_size, None, fail)
        for batch in batches:
            prompts, length = [asked.prompt for asked in batch], settings.max_new_tokens
            answers = generate_answers(
                model, processor, prompts, max_new_tokens=length, is_sampled=is_sampled
            )
            for (number, place, _), answer in zip(batch, answers, strict=True):
                asked = items[number].conversations[place]
                f1 = reward(items[number], asked, answer.text) or 0.0
                if f1 < BELOW_F1 and not answer.is_truncated and answer.text != asked.answer:
                    texts = (asked.question, asked.answer, answer.text)
                    pairs.append(Pair(number, place, *texts, 1.0, f1))
        return Mined.of(pairs, Counter(), None), []

    return mine


def supervised(recipe: Recipe) -> list[float]:
    """The control: as many steps with the supervised loss on all training questions."""
    L.seed_everything(recipe.seed, verbose=False)
    processor = load_processor("tiny")
    items, _ = read_items(recipe.data.train, recipe, processor)
    module = MolmoModule(build_model(recipe), optim_settings(recipe), z_loss=recipe.loss.z_loss)
    trainer = L.Trainer(
        max_steps=recipe.trainer.max_steps,
        max_epochs=-1,
        gradient_clip_val=recipe.trainer.gradient_clip_val,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    options = dataset_options(recipe, processor)
    train_set = TrainingSet(items, **options)
    trainer.fit(module, build_data_module(recipe, train_set, [], options))
    save_adapter(module.model, RunFolder(recipe.output.dir).adapter)
    return evaluated(recipe)


def _nothing() -> None:
    pass


if __name__ == "__main__":
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    num_steps = int(sys.argv[2]) if len(sys.argv) > 2 else 150
    name = f"seed {seed}, {num_steps} supervised steps"
    found[name] = run(seed, num_steps)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found[name], indent=2))
