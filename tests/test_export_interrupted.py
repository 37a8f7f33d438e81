"""An interrupted export leaves nothing, and a killed one is resumed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from molmo_tune.atomic_files import PART_PREFIX, work_name
from molmo_tune.cli import main
from molmo_tune.errors import UserError
from molmo_tune.export import export as export_module
from molmo_tune.export import merge as merge_module
from molmo_tune.export.adapters.vllm_adapter import export_vllm_adapter
from molmo_tune.export.export import export_run
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.model.loading import TINY_FOLDER
from molmo_tune.run_folder import RunFolder
from tests.export_runs import make_run, shard
from tests.killed_exports import contents, exporting
from tests.tiers import slow_except

EXPORTS: dict[str, Any] = {"hub": export_run, "vllm-adapter": export_vllm_adapter}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("whole") / "run", "tiny")


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Writes beyond this size fail, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[None]:
    """A file system of this size."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "none", str(folder)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("a small disk is mounted on Linux, by root")
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no mounts allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_killed_exports_leave_all_or_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_exports", "25", "1"],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["absent"] + found["whole"] == 25
    assert found["whole"] > 0, "no child lived long enough"
    assert found["leftovers"] > 5  # they were killed in the middle, and cleaned up after


@pytest.mark.parametrize("layout", EXPORTS)
def test_failed_write_leaves_nothing(layout: str, run: RunFolder, tmp_path: Path) -> None:
    place = tmp_path / "place"
    with files_of_at_most(20_000), pytest.raises(UserError, match="the disk is full"):
        EXPORTS[layout](run, place / "out")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("layout", EXPORTS)
def test_full_disk_leaves_nothing(
    layout: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 100_000):
        if layout == "hub":
            with pytest.raises(UserError, match="GB free; expected at least"):
                export_run(run, disk / "out")
            monkeypatch.setattr(export_module, "require_free_space", lambda *_, **__: None)
        with pytest.raises(UserError, match=r"out: cannot be written: the disk is full"):
            EXPORTS[layout](run, disk / "out")
        assert list(disk.iterdir()) == []


def test_killed_export_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in its second of three files: the first is kept, the second is rewritten."""
    shard(load_file(TINY_FOLDER / "model.safetensors"), tmp_path / "base")
    run = make_run(tmp_path / "run", str(tmp_path / "base"))
    export_run(run, tmp_path / "whole")
    first, second, _ = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    target = tmp_path / "place" / "out"
    with monkeypatch.context() as patch:
        _kill_while_writing(second, patch)
        child = exporting(run, target)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    [leftover] = (tmp_path / "place").iterdir()
    half, complete = sorted(path.name for path in leftover.iterdir())
    assert half.startswith(f"{PART_PREFIX}{second}.")
    assert complete == first
    (leftover / "preprocessor_config.json").write_text("{")  # as if killed a little later
    written_ns = (leftover / first).stat().st_mtime_ns
    assert main(["export", str(run.root), "--out", str(target)]) == 0
    assert "a killed export: 1 file" in capsys.readouterr().out
    assert (target / first).stat().st_mtime_ns == written_ns
    assert contents(target) == contents(tmp_path / "whole")
    assert list((tmp_path / "place").iterdir()) == [target]


def _kill_while_writing(name: str, patch: pytest.MonkeyPatch) -> None:
    write = merge_module.write_tensor_file

    def kill(path: Path, *rest: Any) -> None:
        if path.name.startswith(PART_PREFIX + name):
            path.write_bytes(b"a part")
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, *rest)

    patch.setattr(merge_module, "write_tensor_file", kill)


@pytest.mark.parametrize("changed", slow_except(["adapter", "dtype", "base"], "adapter"))
def test_different_work_is_not_resumed(changed: str, tmp_path: Path) -> None:
    """Files left by an export of something else are not mixed in."""
    base = tmp_path / "base"
    shutil.copytree(TINY_FOLDER, base)
    run = make_run(tmp_path / "run", str(base))
    target = tmp_path / "place" / "out"
    target.parent.mkdir()
    leftover = target.parent / f".out.unfinished-{_work(run, base)}-x"
    leftover.mkdir()
    wrong = leftover / "model.safetensors"
    wrong.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"model\.safetensors"):  # resumed, and verification fails
        export_run(run, target)
    assert list(target.parent.iterdir()) == []
    leftover.mkdir()
    wrong.write_bytes(b"no weights")
    touched = {"adapter": run.adapter / "adapter_model.safetensors", "base": base / wrong.name}
    if changed in touched:
        os.utime(touched[changed], ns=(1, 1))
    result = export_run(run, target, dtype="bfloat16" if changed == "dtype" else None)
    assert result.found == ()
    assert list(target.parent.iterdir()) == [target]


def _work(run: RunFolder, base: Path) -> str:
    weights = read_checkpoint(base).paths
    return work_name([*weights, *sorted(run.adapter.iterdir())], "hub", None, None)
