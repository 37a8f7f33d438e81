"""Every notebook runs from its first cell to its last, on the tiny model with few steps."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALLER = {r"STEPS = \d+": "STEPS = 4", r"num_clips=1\d0": "num_clips=6"}
IN_ONE_PROCESS = """\
import shlex
from molmo_tune.cli import main
shell = get_ipython()
def system(line):
    assert main(shlex.split(shell.var_expand(line, depth=1))[1:]) == 0, line
shell.system = system
"""
"""Runs the commands of a notebook in its kernel: imports once, and fails where a command fails."""
WRITTEN = {
    "point_at_your_objects": ("preview.html", "run/evaluation/after.json", "export/config.json"),
    "track_and_correct": ("preview.html", "run/evaluation/after.json", "answers/labels.jsonl"),
}


def quick(notebook: Any) -> Any:
    """The same with few clips and steps, and without its installation."""
    notebook.cells = [c for c in notebook.cells if "install" not in c.metadata.get("tags", [])]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for pattern, small in SMALLER.items():
        assert any(re.search(pattern, cell.source) for cell in code), pattern
        for cell in code:
            cell.source = re.sub(pattern, small, cell.source)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(IN_ONE_PROCESS))
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(os.sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = quick(nbformat.read(path, as_version=4))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    (work,) = (folder for folder in tmp_path.iterdir() if folder.name.startswith("work"))
    for name in WRITTEN[path.stem]:
        assert (work / name).is_file(), name


def test_notebooks_are_listed_and_hold_no_outputs() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(WRITTEN)
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs")
            assert 'MODEL = "tiny"' not in cell.source or "allenai/Molmo2-4B" in cell.source
