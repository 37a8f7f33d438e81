"""Load a recipe: YAML file plus overrides in, validated `Recipe` out, or all issues at once.

    recipe = load_recipe("recipes/tracking.yaml", ["optim.lr=2e-4", "data.train.0.path=a.xml"])

    recipe.yaml:6: adapter.method: must be 'lora' or …, not 'lroa'; did you mean 'lora'?
    recipe.yaml:14: optim.learning_rate: no such key; use optim.lr
    --set trainer.max_steps=many: trainer.max_steps: must be an integer, not 'many'

Limitations: bundled recipes are not looked up (`bundled`), and files named in a recipe are not
opened (their readers report them).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from molmo_tune.recipe.checking import check
from molmo_tune.recipe.draft import draft_of, override
from molmo_tune.recipe.issues import Issue, RecipeError
from molmo_tune.recipe.messages import describe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.recipe.yaml_lines import Reading, read_yaml

LARGEST_FILE = 1_000_000
"""Bytes; a larger file is a checkpoint or a label file given by mistake."""

_START = "start from a bundled recipe: molmo-tune recipes NAME"


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Load the recipe at ``path`` with overrides as for ``--set`` (``optim.lr=2e-4``).

    Raises:
        RecipeError: one line per issue in the file and in the overrides.
    """
    return parse_recipe(_file_text(Path(path)), str(path), overrides)


def parse_recipe(text: str, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Do the same as `load_recipe` for a YAML text; ``source`` names it in messages."""
    reading = read_yaml(text)
    draft = draft_of(source, reading)
    if not isinstance(reading.value, dict):
        raise RecipeError(source, draft.issues or [_not_sections(source, reading)])
    override(draft, overrides)
    recipe, issues = check(draft)
    issues = [*draft.issues, *issues]
    if recipe is None or issues:
        raise RecipeError(source, _in_reading_order(issues, overrides))
    return recipe


def _file_text(path: Path) -> str:
    """Read the file, or raise the one reason why it cannot be read."""
    try:
        if not path.exists():
            reason = f"no such file; expected a recipe (YAML); {_START}"
        elif path.is_dir():
            reason = "is a folder; expected a recipe; name a .yaml file in it"
        elif path.stat().st_size > LARGEST_FILE:
            reason = "larger than 1 MB; expected a recipe, a YAML file with about 60 lines"
        else:
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8; expected a text file; save it as UTF-8"
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    raise RecipeError(str(path), [Issue(str(path), None, "", reason)])


def _not_sections(source: str, reading: Reading) -> Issue:
    """The issue of a text that is valid YAML, but not a mapping."""
    found = "the file is empty" if reading.value is None else f"contains {describe(reading.value)}"
    expected = "expected sections, such as model, data and output"
    return Issue(source, reading.lines.get(()), "", f"{found}; {expected}; {_START}")


def _in_reading_order(issues: list[Issue], overrides: Sequence[str]) -> list[Issue]:
    """By line; then the overrides, in the order given."""
    typed = [f"--set {text}" for text in overrides]

    def place(issue: Issue) -> tuple[int, int]:
        return (0, issue.line) if issue.line is not None else (1, typed.index(issue.source))

    return sorted(issues, key=place)
