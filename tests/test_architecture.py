"""The house rules: no stage imports a later one, and looking in costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "molmo_tune"

# The order in which data flows. A room may import itself and what stands before it.
ORDER = (
    "errors",
    "units",
    "file_lock",
    "atomic_files",
    "label_formats",
    "media",
    "recipe",
    "grounding",
    "labels",
    "templates",
    "encoding",
    "model",
    "run_folder",
    "evaluation",
    "checks",
    "preference",
    "training",
    "planning",
    "export",
    "pages",
    "tiny",
    "commands",
    "cli",
    "__main__",
)

WITHOUT_TORCH = (
    "errors",
    "units",
    "atomic_files",
    "label_formats",
    "media",
    "recipe",
    "grounding",
    "labels",
    "templates",
    "run_folder",
)
TEXT_SUFFIXES = (
    ".py",
    ".toml",
    ".md",
    ".yaml",
    ".yml",
    ".json",
    ".cff",
    "run",
    "wheel",
    "Makefile",
)


def _room(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(module: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("molmo_tune")
        ):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {parts[1] for parts in names if parts[0] == "molmo_tune" and len(parts) > 1}
    return found - {"__version__"}


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_stage_imports_a_later_one(module: Path) -> None:
    room = _room(module)
    assert room in ORDER, f"{room} has no place in ORDER"
    later = {name for name in _imports(module) if ORDER.index(name) > ORDER.index(room)}
    assert not later


def test_the_rule_finds_a_back_edge(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("from molmo_tune.training.run import train\nimport molmo_tune.cli\n")
    assert _imports(module) == {"training", "cli"}


@pytest.mark.parametrize("room", ["", *WITHOUT_TORCH, "cli", "commands.check", "commands.plan"])
def test_importing_stays_light(room: str) -> None:
    name = f"molmo_tune.{room}" if room else "molmo_tune"
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_file_lock_imports_what_windows_lacks() -> None:
    posix = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
    users = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                users |= {module.name for alias in node.names if alias.name in posix}
            elif isinstance(node, ast.ImportFrom) and node.module in posix:
                users.add(module.name)
    assert users == {"file_lock.py"}


def test_every_module_opens_with_prose() -> None:
    for module in MODULES:
        docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
        assert docstring, module


def test_no_host_of_a_registry_and_no_lock_file() -> None:
    root = PACKAGE.parent
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.split()
    assert "uv.lock" not in tracked
    hosts = ("pypi." + "org", "pythonhosted." + "org", "registry.npmjs." + "org")
    texts = [p for p in tracked if p.endswith(TEXT_SUFFIXES)]
    for name in texts:
        path = root / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not any(host in text for host in hosts), name
