"""`molmo-tune doctor`: this machine is ready, and each problem is reported with its fix."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

import molmo_tune
from molmo_tune.cli import main
from molmo_tune.commands import doctor
from molmo_tune.commands.doctor import Line, run_check


def test_this_machine_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(": ready")
    for what in ("torch", "transformers", "tiny model", "bitsandbytes", "video", "disk here"):
        assert any(line.startswith(("ok", "note")) and what in line for line in lines), what


def test_an_old_transformers_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", "5.19.3")
    (line,) = doctor._transformers()
    assert line.state == "problem"
    assert "5.19.3 has no Molmo 2 classes: uv pip install" in line.found


def test_an_exception_becomes_a_problem_with_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _kernels() -> Iterator[Line]:
        yield Line("ok", "first", "fine")
        raise RuntimeError("undefined symbol: cuInit\nand more")

    found = list(run_check(_kernels))
    assert found == [
        Line("ok", "first", "fine"),
        Line("problem", "kernels", "RuntimeError: undefined symbol: cuInit"),
    ]
    monkeypatch.setattr(doctor, "CHECKS", (_kernels,))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(": 1 to fix")


def test_wrong_operators_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = SimpleNamespace(ops=SimpleNamespace(nms=lambda *_: [0, 1]), __version__="0")
    monkeypatch.setitem(sys.modules, "torchvision", broken)
    (line,) = run_check(doctor._torchvision)
    assert line.state == "problem"
    assert "wrong results" in line.found


def test_json_has_versions_checks_and_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _kernels() -> Iterator[Line]:
        yield Line("problem", "kernels", "missing")

    monkeypatch.setattr(doctor, "CHECKS", (doctor._python, _kernels))
    assert main(["doctor", "--json"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert results["molmo_tune"] == molmo_tune.__version__
    assert results["packages"]["torch"] == version("torch")
    assert "pytest" not in results["packages"]
    assert isinstance(results["gpus"], list)
    assert [line["what"] for line in results["checks"]] == ["python", "kernels"]
    assert results["problems"] == ["kernels"]
    file = tmp_path / "doctor.json"
    assert main(["doctor", "--json", str(file)]) == 1
    assert json.loads(file.read_text()) == results
    assert capsys.readouterr().out.splitlines()[-1].endswith(": 1 to fix")


def test_a_small_disk_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=3e9))
    assert [line.state for line in doctor._disk()] == ["note", "note"]
