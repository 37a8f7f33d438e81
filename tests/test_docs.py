"""Documents are true: their code runs, their paths exist, their commands and recipe keys parse."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from molmo_tune.cli import VERBS, parser
from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.model.loading import TINY_FOLDER
from molmo_tune.recipe.bundled import bundled, list_bundled
from molmo_tune.recipe.keys import all_keys
from molmo_tune.recipe.loader import load_recipe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PATH_SUFFIXES = ("py", "md", "yaml", "yml", "json", "toml", "j2", "ipynb", "jpg", "html", "xml")
MADE_BY_COMMANDS = {
    "recipe.yaml",
    "recipe.schema.json",
    "demo_out/report.html",
    "demo_out/preview.html",
    "export_report.json",
    "config.json",
    "answers.json",
    *("case.json", "malformed.json", "expected.jsonl", "report.json", "README.md", "basic/"),
    "video_pointing_lora.yaml",
}
"""Names in the documents of files that a command writes."""

# A command in a text: up to the end of the line, of the code or of the string around it.
COMMAND = re.compile(rf"molmo-tune (?P<verb>{'|'.join(VERBS)})\b(?P<rest>[^`\n\"#;|&>)]*)")


def _code(text: str) -> Iterator[str]:
    """Inline code of a page, outside of its blocks."""
    without_blocks = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", without_blocks)


def _looks_like_path(code: str) -> bool:
    if not re.fullmatch(r"[\w./*-]+", code) or code.startswith(("-", "/")):
        return False
    # A part in capitals is for the reader to fill in.
    if re.search(r"\b[A-Z]+[/.]|/[A-Z]+\b(?!\.md)", code):
        return False
    return code.endswith("/") or code.rpartition(".")[2] in PATH_SUFFIXES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    missing = []
    for code in _code(page.read_text(encoding="utf-8")):
        if _looks_like_path(code) and code not in MADE_BY_COMMANDS:
            places = (ROOT, ROOT / "molmo_tune", page.parent)
            if not any(next(iter(place.glob(code.rstrip("/"))), None) for place in places):
                missing.append(code)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def _sources() -> list[Path]:
    package = [*(ROOT / "molmo_tune").rglob("*.py"), *(ROOT / "molmo_tune").rglob("*.j2")]
    others = [*(ROOT / "recipes").glob("*"), *(ROOT / "data_templates").glob("*")]
    return [*PAGES, *package, *others, *(ROOT / "notebooks").glob("*.ipynb")]


def _commands(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    if path.suffix == ".md":
        text = re.sub(r"\\\n\s*", " ", text)
    for found in COMMAND.finditer(text):
        yield f"{found['verb']}{found['rest']}".strip()


def _problem(command: str) -> str:
    """What the real parser would say against the options; the words after a command are prose."""
    verb, *words = re.sub(r"[][:]", " ", command).split()
    actions = _verbs()[verb]._actions
    options = {option: action for action in actions for option in action.option_strings}
    for word, value in pairwise([*words, ""]):
        if word.startswith("--"):
            action = options.get(word.rstrip(".,:"))
            if action is None:
                return f"no option {word}"
            if action.choices and value.islower() and value not in action.choices:
                return f"{word} {value} is not a choice"
    if len(words) == 1 and words[0].isidentifier() and not words[0].isupper():
        names = {"recipes": [*list_bundled("recipes"), *list_bundled("data_templates")]}
        if words[0] not in names.get(verb, [*FORMAT_MODULES] if verb == "formats" else words):
            return f"no {words[0]}"
    return ""


@cache
def _verbs() -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def test_commands_parse() -> None:
    commands = [(path, command) for path in _sources() for command in _commands(path)]
    assert len(commands) > 60
    wrong = [f"{path.name}: {c}: {_problem(c)}" for path, c in commands if _problem(c)]
    assert wrong == []


def test_a_wrong_command_is_found() -> None:
    assert _problem("export RUN --layout hbu --out X") == "--layout hbu is not a choice"
    assert _problem("train RECIPE --resme") == "no option --resme"
    assert _problem("recipes copy") == "no copy"
    assert _problem("formats coco") == ""
    assert _problem("export RUN --layout vllm-adapter --out my-adapter") == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_blocks_parse(page: Path) -> None:
    """Complete commands, as a user would paste them."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words[:1] == ["molmo-tune"]:
                    parser().parse_args(words[1:])


def test_recipe_keys_in_documents_exist() -> None:
    sections = {key.partition(".")[0] for key in all_keys()}
    for page in PAGES:
        for code in _code(page.read_text(encoding="utf-8")):
            key = code.partition(":")[0]
            is_key = re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key) and key.partition(".")[0] in sections
            if is_key and not key.endswith((".py", ".pt", ".yaml", ".json")):
                assert key in all_keys(), f"{page.name}: {key}"


def test_the_recipe_of_the_readme_loads(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    recipe, preference = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe, encoding="utf-8")
    overrides = re.findall(r"--set ([^\s`]+)", text)
    assert len(overrides) >= 2
    load_recipe(file, overrides)
    whole = yaml.safe_load(bundled("recipes", "video_pointing_preference").read_text("utf-8"))
    assert yaml.safe_load(preference)["preference"].items() <= whole["preference"].items()


def test_the_readme_counts_the_data_templates() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    number = len(list((ROOT / "data_templates").glob("*.yaml")))
    assert f"{number} data templates" in text


def test_the_transformers_block_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my-molmo2").symlink_to(TINY_FOLDER)
    shutil.copy(DOCS / "demo.jpg", tmp_path / "frame.jpg")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "serving.md", "exec"), {})
    assert "points" in capsys.readouterr().out
