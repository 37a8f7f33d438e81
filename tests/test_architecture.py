"""The house rules: no stage imports a later one, and looking in costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from molmo_tune import choices

PACKAGE = Path(__file__).parent.parent / "molmo_tune"

# The order in which data flows. A room may import itself and what stands before it.
ORDER = (
    "errors",
    "choices",
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


def _module_name(path: Path) -> str:
    return ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def _import_graph(paths: Sequence[Path]) -> dict[str, set[str]]:
    """Module → modules of the package it imports, those for type checking and in functions too."""
    trees = {_module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & trees.keys()) or {node.module}
        graph[name] = found & (trees.keys() - {name})
    return graph


def _import_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that are left when modules without imports are removed again and again."""
    left = {name: set(imported) for name, imported in graph.items()}
    while free := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in free}
    while unused := left.keys() - set().union(*left.values()):
        left = {name: imported for name, imported in left.items() if name not in unused}
    return sorted(left)


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


def test_no_import_circle() -> None:
    assert _import_circle(_import_graph(MODULES)) == []


def test_an_import_circle_is_found() -> None:
    graph = {"a": {"b", "d"}, "b": {"c"}, "c": {"b"}, "d": set[str](), "e": {"a"}}
    assert _import_circle(graph) == ["b", "c"]


@pytest.mark.parametrize("room", ["", *WITHOUT_TORCH, "cli", "commands.check", "commands.plan"])
def test_importing_stays_light(room: str) -> None:
    name = f"molmo_tune.{room}" if room else "molmo_tune"
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "numpy", "pydantic", "rich", "yaml", "jinja2"}
    code = (
        f"import sys, molmo_tune.cli as c; c.parser(); sys.exit(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("", "[]")


def test_choices_have_one_home() -> None:
    """No module lists the words of a setting a second time, neither as a type nor for argparse."""
    listed = {frozenset(get_args(value)) for value in vars(choices).values() if get_args(value)}
    assert len(listed) > 15
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "choices":
                assert isinstance(node.value, ast.Call), f"{path}: {ast.unparse(node.value)}"
            is_literal = isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
            if is_literal and path.stem != "choices":
                words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert frozenset(words) not in listed, f"{path}: {ast.unparse(node)}"


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
