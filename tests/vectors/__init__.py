"""Run records of the reference's behavior through this package.

A vector file is a JSON list of ``{"task", "input", "output"}``, made by running Ai2's code. One
module per file beside this one exposes ``TASKS``, task name to a function from input to output, and
optionally ``TOLERANCE`` for its floating-point numbers. Where the reference raised, the output is
``{"error": exception name}``, and so is ours when our function raises.

Command: ``python -m tests.vectors FILE [FILE …]``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# Light ones first: a module is only imported when the ones before it do not know the task.
MODULES = ("format_tasks", "metric_tasks", "sampling_tasks", "image_tasks", "training_tasks")
DEFAULT_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Task:
    run: Callable[[Any], Any]
    tolerance: float


@cache
def _tasks_of(module_name: str) -> dict[str, Task]:
    name = f"{__name__}.{module_name}"
    if importlib.util.find_spec(name) is None:
        return {}
    module = importlib.import_module(name)
    tolerance = getattr(module, "TOLERANCE", DEFAULT_TOLERANCE)
    return {task: Task(run, tolerance) for task, run in module.TASKS.items()}


def find_task(name: str) -> Task | None:
    """Return the task of this name, or None if there is none."""
    for module_name in MODULES:
        task = _tasks_of(module_name).get(name)
        if task is not None:
            return task
    return None


def differs(actual: Any, expected: Any, tolerance: float, where: str = "output") -> str | None:
    """Return the first difference as text, or None. Text, counts and booleans must be equal."""
    if isinstance(expected, float) and isinstance(actual, float | int):
        same = math.isclose(actual, expected, rel_tol=tolerance, abs_tol=tolerance)
        return None if same else f"{where}: {actual!r} is not {expected!r}"
    if isinstance(expected, dict) and isinstance(actual, dict) and expected.keys() == actual.keys():
        pairs = [(actual[key], expected[key], f"{where}.{key}") for key in expected]
    elif isinstance(expected, list) and isinstance(actual, list | tuple):
        if len(actual) != len(expected):
            return (
                f"{where}: {len(actual)} entries {actual!r}, expected {len(expected)} {expected!r}"
            )
        pairs = [(actual[n], expected[n], f"{where}[{n}]") for n in range(len(expected))]
    else:
        same = type(actual) is type(expected) and actual == expected
        return None if same else f"{where}: {actual!r} is not {expected!r}"
    found = (differs(a, e, tolerance, path) for a, e, path in pairs)
    return next((difference for difference in found if difference), None)


def check(record: dict[str, Any]) -> str | None:
    """Return why this record fails, or None if it passes."""
    try:
        task = find_task(record["task"])
    except ImportError as error:
        return f"cannot import the tasks: {error}"
    if task is None:
        return f"unknown task {record['task']!r}"
    try:
        actual = task.run(record["input"])
    except Exception as error:  # the reference's exceptions are part of its recorded behavior
        if record["output"] == {"error": type(error).__name__}:
            return None
        return f"raised {type(error).__name__}: {error}"
    return differs(actual, record["output"], task.tolerance)


def load(path: Path) -> list[dict[str, Any]]:
    """Return the records of a vector file."""
    records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return records


def failures(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each record of a file, and why it fails (None: it passes)."""
    for number, record in enumerate(load(path)):
        yield f"{path.name}[{number}] {record.get('task')}", check(record)
