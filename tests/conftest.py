"""Shared fixtures: the folder of large fixtures and a small dataset; the line on slow tests.

`MOLMO_TUNE_SHARED` names the folder with the large fixtures (checkpoints in the released layout,
samples of many tools). A plain clone has none; tests that need them are skipped with a reason.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # else every worker starts a thread per core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("MOLMO_TUNE_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the large fixtures."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip(f"no large fixtures at {SHARED}; set MOLMO_TUNE_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips with CVAT labels (`clips/`, `labels/`)."""
    from molmo_tune.tiny.pond import write_pond

    folder = tmp_path_factory.mktemp("pond")
    write_pond(folder, num_clips=4, seed=3, on_clip=lambda: None)
    return folder


@pytest.fixture
def pond_recipe(pond: Path, tmp_path: Path) -> Path:
    """A recipe that trains the tiny base on the pond, six steps."""
    return write_pond_recipe(pond, tmp_path)


def write_pond_recipe(pond: Path, folder: Path) -> Path:
    """Write a recipe that trains the tiny base on the pond into `folder / "run"`."""
    source = f"format: cvat_video, path: {pond / 'labels'}, media: {pond / 'clips'}"
    path = folder / "recipe.yaml"
    path.write_text(
        f"""\
seed: 7
model: {{name: tiny}}
adapter: {{rank: 4, alpha: 8, dropout: 0.1, targets: [language, connector, vision]}}
data:
  train: [{{{source}}}]
  val: [{{{source}}}]
  num_workers: 0
video: {{max_frames: 8}}
optim: {{lr: 1.0e-3, warmup_steps: 1}}
trainer: {{max_steps: 6, batch_size: 1, accumulate_grad_batches: 2, precision: 32-true}}
eval: {{max_questions: 4, max_new_tokens: 8}}
output: {{dir: {folder / "run"}}}
""",
        encoding="utf-8",
    )
    return path


NOT_RUN = "num_slow_not_run"
"""Key of the number of deselected slow tests, which each worker reports when it ends."""
_deselected = pytest.StashKey[int]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the slow tests among the deselected."""
    if items:
        num_slow = sum(item.get_closest_marker("slow") is not None for item in items)
        stash = items[0].config.stash
        stash[_deselected] = stash.get(_deselected, 0) + num_slow


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the count of a worker process to the main process."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[NOT_RUN] = session.config.stash.get(_deselected, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the count of a worker: each collects, and deselects, all tests."""
    node.config.stash[_deselected] = getattr(node, "workeroutput", {}).get(NOT_RUN, 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how to run what was not run."""
    if number := config.stash.get(_deselected, 0):
        terminalreporter.write_line(f"{number} slow tests not run: pytest -m slow")
