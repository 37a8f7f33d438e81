"""The built package: which files it contains, and that it runs without the repository.

The wheel is installed in a new environment that borrows the dependencies of this one: a `.pth` file
adds their folder after its own, so nothing is downloaded and `molmo_tune` is the wheel's.
`make wheel` does the same with real dependencies, and runs the demo.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed; the extra dev has it")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MAX_WHEEL_MB = 5  # the tiny base is 2.5 MB of it

# A file of the wheel matches one of these, or the wheel has it by accident.
WHEEL_FILES = (
    r"molmo_tune/(\w+/)*\w+\.py",
    r"molmo_tune/py\.typed",
    r"molmo_tune/pages/html/\w+\.html\.j2",
    r"molmo_tune/tiny/base/\w+\.(json|jinja|safetensors)",
    r"molmo_tune/_bundled/(recipes|data_templates)/\w+\.yaml",
    r"molmo_tune-[\w.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)",
)
SDIST_FOLDERS = {".ci", "molmo_tune", "recipes", "data_templates", "docs", "notebooks", "tests"}
SDIST_FILES = {
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("RELEASING.md", "SECURITY.md", ".gitignore", "PKG-INFO", "pyproject.toml"),
}


def build(kind: str, source: Path, out: Path) -> Path:
    """The one file that hatchling writes to `out`; `kind` is wheel or sdist."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


def test_the_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    unknown = {n for n in names(wheel) if not any(re.fullmatch(rule, n) for rule in WHEEL_FILES)}
    assert not unknown
    assert wheel.stat().st_size < MAX_WHEEL_MB * 1e6


def test_the_wheel_lacks_no_file(wheel: Path) -> None:
    package = (p for p in (ROOT / "molmo_tune").rglob("*") if p.is_file())
    expected = {p.relative_to(ROOT).as_posix() for p in package if "__pycache__" not in p.parts}
    for kind in ("recipes", "data_templates"):
        expected |= {f"molmo_tune/_bundled/{kind}/{p.name}" for p in (ROOT / kind).glob("*.yaml")}
    assert expected <= names(wheel)
    assert "molmo_tune/py.typed" in expected


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert {p.name for p in source.iterdir() if p.is_dir()} == SDIST_FOLDERS
    assert {p.name for p in source.iterdir() if p.is_file()} == SDIST_FILES
    assert names(build("wheel", source, source / "out")) == names(wheel)


class Installed:
    """An environment with the wheel, and an empty folder to run commands in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.prefix, self.elsewhere = folder / "env", folder / "elsewhere"
        self.elsewhere.mkdir()
        venv.create(self.prefix, with_pip=True, symlinks=os.name != "nt")
        paths = {"base": str(self.prefix), "platbase": str(self.prefix)}
        self.scripts = Path(sysconfig.get_path("scripts", "venv", paths))
        self.packages = Path(sysconfig.get_path("purelib", "venv", paths))
        self.run("python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel))
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)), encoding="utf-8")

    def run(self, program: str, *arguments: str) -> str:
        """What a command of the environment prints; it must succeed."""
        unset = ("PYTHONPATH", "VIRTUAL_ENV")
        environment = {key: value for key, value in os.environ.items() if key not in unset}
        done = subprocess.run(
            [self.scripts / program, *arguments],
            cwd=self.elsewhere,
            env=environment | {"PYTHONNOUSERSITE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_the_package_is_the_wheels(installed: Installed) -> None:
    where = installed.run("python", "-c", "import molmo_tune; print(molmo_tune.__file__)")
    assert Path(where.strip()).is_relative_to(installed.packages)


def test_commands_run_from_another_folder(installed: Installed) -> None:
    listed = installed.run("molmo-tune", "recipes")
    for kind in ("recipes", "data_templates"):
        assert all(path.stem in listed for path in (ROOT / kind).glob("*.yaml"))
    assert "cvat_video" in installed.run("molmo-tune", "formats")
    installed.run("molmo-tune", "recipes", "video_pointing_lora", "--to", ".")
    assert (installed.elsewhere / "video_pointing_lora.yaml").is_file()


def test_the_doctor_runs_from_another_folder(installed: Installed) -> None:
    installed.run("molmo-tune", "doctor")  # loads the tiny base, writes and reads a video
