"""Parts of training by themselves: schedule, log lines, hidden notices, the subpackage's map."""

from __future__ import annotations

import importlib
import io
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from rich.console import Console

from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import OptimSection
from molmo_tune.training.callbacks.progress import StepProgress
from molmo_tune.training.optimizers import OptimSettings, optim_settings
from molmo_tune.training.quiet_libraries import quiet_libraries
from molmo_tune.training.run import train
from molmo_tune.training.schedule import DECAYS, lr_factor
from tests.stopped_training import stopping_after

# --- schedule ------------------------------------------------------------------------------------

TEN_STEPS = {"max_steps": 10, "warmup_steps": 2, "min_lr_ratio": 0.2}
FACTORS: list[tuple[str, dict[str, Any], dict[int, float]]] = [
    # warmup reaches the peak in its last step; halfway between peak and end; at and after the end
    ("linear", TEN_STEPS, {0: 0.5, 1: 1.0, 2: 1.0, 6: 0.6, 9: 0.3, 10: 0.2, 99: 0.2}),
    ("cosine", TEN_STEPS, {0: 0.5, 1: 1.0, 2: 1.0, 4: 0.8828427, 6: 0.6, 10: 0.2, 99: 0.2}),
    # constant ignores the end, whatever its ratio
    ("constant", TEN_STEPS, {0: 0.5, 1: 1.0, 2: 1.0, 6: 1.0, 10: 1.0, 99: 1.0}),
    ("constant", {"max_steps": 10, "min_lr_ratio": 1 / 3}, {0: 1.0, 9: 1.0}),
    # no warmup starts at the peak; down to zero
    ("linear", {"max_steps": 4, "min_lr_ratio": 0.0}, {0: 1.0, 1: 0.75, 3: 0.25, 4: 0.0}),
    ("cosine", {"max_steps": 4, "min_lr_ratio": 0.0}, {0: 1.0, 2: 0.5, 4: 0.0}),
    # warmup over the whole run, and longer than it
    ("cosine", {"max_steps": 3, "warmup_steps": 3}, {0: 1 / 3, 1: 2 / 3, 2: 1.0}),
    ("linear", {"max_steps": 2, "warmup_steps": 4}, {0: 0.25, 1: 0.5}),
]


@pytest.mark.parametrize(("name", "settings", "factors"), FACTORS)
def test_learning_rate_factor(
    name: Any, settings: dict[str, Any], factors: dict[int, float]
) -> None:
    optim = OptimSettings(lr=1.0, part_lr={}, schedule=name, **settings)
    found = {step: lr_factor(optim, step) for step in factors}
    assert found == pytest.approx(factors, abs=1e-6)


def test_a_recipe_offers_every_schedule() -> None:
    assert set(get_args(OptimSection.model_fields["schedule"].annotation)) == set(DECAYS)


@pytest.mark.parametrize(("set_in_recipe", "steps"), [("null", 18), ("0", 0), ("7", 7)])
def test_warmup_is_3_percent_of_the_run_unless_set(
    set_in_recipe: str, steps: int, pond_recipe: Path
) -> None:
    overrides = [f"optim.warmup_steps={set_in_recipe}", "trainer.max_steps=600"]
    assert optim_settings(load_recipe(pond_recipe, overrides)).warmup_steps == steps


# --- log lines -----------------------------------------------------------------------------------


def logged_steps(every_steps: int, *steps: int, resumed_at: int = 0) -> list[int]:
    """Steps with a line, in a run of 12 steps whose batches end at `steps`."""
    out = io.StringIO()
    progress = StepProgress(Console(file=out, width=100), every_steps)
    trainer: Any = SimpleNamespace(max_steps=12, global_step=resumed_at)
    trainer.callback_metrics = {"train/loss": torch.tensor(1.25)}
    module: Any = None
    progress.on_train_start(trainer, module)
    for trainer.global_step in steps:
        progress.on_train_batch_end(trainer, module)
    progress.on_train_end(trainer, module)
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    assert all(line.endswith("of 12  loss 1.250") for line in lines)
    return [int(line.split()[1]) for line in lines]


def test_a_line_every_n_optimizer_steps_and_at_the_end() -> None:
    assert logged_steps(5, *range(1, 13)) == [5, 10, 12]
    assert logged_steps(1, 1, 2, 3) == [1, 2, 3]
    assert logged_steps(100, *range(1, 13)) == [12]
    assert logged_steps(2, 0, 1, 1, 2, 2, 2, 3, 3, 4) == [2, 4]  # micro-batches in between
    assert logged_steps(5, *range(7, 13), resumed_at=6) == [10, 12]
    assert logged_steps(5, 5, 5, 6, resumed_at=5) == []


def test_a_run_logs_as_its_recipe_says(pond_recipe: Path) -> None:
    out = io.StringIO()
    train(load_recipe(pond_recipe, ["trainer.log_every_n_steps=4"]), Console(file=out, width=100))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("step ")]
    assert [line.split("  ")[0] for line in lines] == ["step 4 of 6", "step 6 of 6"]


# --- hidden notices ------------------------------------------------------------------------------

CONNECTOR = "lightning.pytorch.trainer.connectors.data_connector"
WARNINGS = [
    # category, module, message, hidden
    (PossibleUserWarning, CONNECTOR, "The 'train_dataloader' does not have many workers", True),
    (
        PossibleUserWarning,
        CONNECTOR,
        "Your `val_dataloader`'s sampler has shuffling enabled",
        False,
    ),
    (UserWarning, CONNECTOR, "The 'train_dataloader' does not have many workers", False),
    (PossibleUserWarning, "mine", "The 'train_dataloader' does not have many workers", False),
    (
        PossibleUserWarning,
        "lightning.pytorch.loops.training_epoch_loop",
        "You're resuming from a checkpoint that ended before the epoch ended and your dataloader "
        "is not resumable.",
        False,
    ),
    (PossibleUserWarning, "lightning.pytorch.loops.fit_loop", "Found 3 module(s) in eval", False),
    (
        UserWarning,
        "lightning.pytorch.callbacks.model_checkpoint",
        "Checkpoint directory runs/x exists and is not empty.",
        True,
    ),
    (
        UserWarning,
        "lightning.pytorch.callbacks.model_checkpoint",
        "You set `save_last=True` but there is no monitor",
        False,
    ),
    (
        FutureWarning,
        "transformers.modeling_utils",
        "`is_gradient_checkpointing` is deprecated and will be removed in v6.",
        True,
    ),
    (FutureWarning, "transformers.modeling_utils", "`torch_dtype` is deprecated!", False),
    (
        FutureWarning,
        "lightning.pytorch.utilities._pytree",
        "`isinstance(treespec, LeafSpec)` is deprecated",
        True,
    ),
]


@pytest.mark.parametrize(("category", "module", "message", "is_hidden"), WARNINGS)
def test_notices_are_hidden_by_category_module_and_message(
    category: type[Warning], module: str, message: str, is_hidden: bool
) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with quiet_libraries():
            warnings.warn_explicit(message, category, "file.py", 1, module)
        assert len(shown) == (0 if is_hidden else 1)
        warnings.warn_explicit(message, category, "file.py", 1, module)
        assert len(shown) == (1 if is_hidden else 2)  # only during the with


def test_a_run_and_its_resumption_show_no_warning(pond_recipe: Path) -> None:
    recipe = load_recipe(pond_recipe, ["trainer.gradient_checkpointing=true"])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        with stopping_after(3):
            train(recipe, Console(quiet=True))
        train(recipe, Console(quiet=True), resume=True)
    assert [str(one.message) for one in shown] == []


# --- the map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "planning", "preference", "training"])
def test_the_map_of_a_subpackage_names_its_modules(name: str) -> None:
    """In the docstring of `__init__`, a line each, indented."""
    package = importlib.import_module(f"molmo_tune.{name}")
    folder = Path(str(package.__file__)).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    mapped = re.findall(r"^    (\w+)  ", package.__doc__ or "", re.MULTILINE)
    assert sorted(mapped) == sorted(modules)
