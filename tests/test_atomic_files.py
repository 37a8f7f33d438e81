"""Files and folders appear complete or not at all, whatever fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from molmo_tune import file_lock
from molmo_tune.atomic_files import (
    atomic_file,
    atomic_folder,
    write_json,
    write_text,
)
from molmo_tune.errors import UserError


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, and on some network drives."""
    monkeypatch.setattr(file_lock, "fcntl", None)


def test_file_is_replaced_completely(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    write_json(path, {"n": 1})
    write_json(path, {"n": "\u00fc"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"n": "\u00fc"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full .*; expected free space for all of it; free some"),
        (errno.EDQUOT, "the disk quota is full"),
        (errno.EROFS, "Read-only file system.*; change its permissions or choose another"),
        (errno.EACCES, "Permission denied.*; change its permissions or choose another"),
        (errno.EIO, "cannot be written .Input/output error.$"),
    ],
)
def test_failure_is_one_clear_error_and_keeps_the_old(
    number: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    write_text(file, "old")
    with atomic_folder(folder) as unfinished:
        write_text(unfinished / "file", "old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=message):
        write_text(file, "new")
    with pytest.raises(UserError, match=message), atomic_folder(folder, replace=True) as unfinished:
        (unfinished / "file").write_text("new")
    assert file.read_text() == (folder / "file").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_error_names_the_target_not_the_hidden_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, atomic_folder(tmp_path / "out") as unfinished:  # noqa: PT012
        (unfinished / "config.json").mkdir()
        write_json(unfinished / "config.json", {})
    assert caught.value.where == str(tmp_path / "out")


def test_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with pytest.raises(UserError, match=r"no folder .*place"), atomic_file(place / "f") as part:  # noqa: PT012
        part.touch()
        shutil.rmtree(place)
    with pytest.raises(UserError, match=r"no folder .*place"), atomic_folder(place / "out"):
        shutil.rmtree(place)
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"no folder .*file"),
        atomic_folder(tmp_path / "file" / "x"),
    ):
        pass


def test_folder_is_replaced_with_all_its_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_folder(tmp_path / "out", replace=True) as unfinished:
            (unfinished / name).touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failed_rename_restores_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as unfinished:
        (unfinished / "old").touch()
    rename = Path.rename

    def fail(path: Path, to: Path) -> Path:
        if path.name.startswith(".out.unfinished"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError), atomic_folder(target, replace=True):
        pass
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("no_locks")
def test_without_locks_leftovers_are_not_touched(tmp_path: Path) -> None:
    leftover = tmp_path / ".out.unfinished-same-x"
    leftover.mkdir()
    (leftover / "file").touch()
    with atomic_folder(tmp_path / "out", "same", ["file"]) as unfinished:
        assert unfinished != leftover
    assert (leftover / "file").exists()
    assert (tmp_path / "out").is_dir()


def test_killed_replacement_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as unfinished:
        (unfinished / "old").touch()
    child = os.fork()
    if child == 0:
        with atomic_folder(target, replace=True) as unfinished:
            (unfinished / "new").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_folder(target, replace=True) as unfinished:
        (unfinished / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


MODULES = "molmo_tune.media.array_cache, molmo_tune.labels.formats.jsonl, molmo_tune.export.export"


def test_package_imports_without_fcntl() -> None:
    """As on Windows."""
    code = f"import sys; sys.modules['fcntl'] = None; import {MODULES}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_unlocked_leftovers_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "out"
    dead = tmp_path / ".out.unfinished-dead"
    dead.mkdir()
    (dead / "file").touch()
    (tmp_path / ".outer.unfinished-other").mkdir()
    with atomic_folder(target) as slow:
        (slow / "file").write_text("slow")
        assert not dead.exists()
        with pytest.raises(UserError, match="already exists"):  # noqa: PT012, SIM117
            with atomic_folder(tmp_path / "out") as other:
                assert slow.is_dir()
                assert other != slow
                target.mkdir()  # as if a third process had been faster
        target.rmdir()
    assert (target / "file").read_text() == "slow"
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".outer.unfinished-other"}


def test_locked_folder_is_not_resumed(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out", "same") as slow:
        (slow / "file").touch()
        with suppress(KeyboardInterrupt), atomic_folder(tmp_path / "out", "same") as other:
            assert other != slow
            raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def _raise_inside(target: Path, error: BaseException) -> None:
    with atomic_folder(target) as folder:
        (folder / "file").touch()
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), UserError("a", "b")])
def test_other_errors_pass_unchanged(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        _raise_inside(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="cannot be written"),
        atomic_folder(tmp_path / "file" / "out"),
    ):
        pass
