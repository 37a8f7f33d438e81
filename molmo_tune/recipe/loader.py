"""Reads a recipe: YAML file plus overrides in, checked `Recipe` out, or every fault at once.

    recipe = load_recipe("recipes/tracking.yaml", ["optim.lr=2e-4", "data.train.0.path=a.xml"])

    recipe.yaml:6: adapter.method: must be 'lora', not the text 'lroa'; did you mean 'lora'?
    recipe.yaml:14: optim.learning_rate: there is no such key; that is optim.lr here
    --set trainer.max_steps=many: trainer.max_steps: must be a whole number, not the text 'many'

What it does not do: look for bundled recipes (`bundled`) or check that the files named in a recipe
exist (whoever opens them says so).
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
"""Bytes; what is larger is not a recipe but a checkpoint or a label file given by mistake."""

_START = "start from a bundled recipe: molmo-tune recipes copy"


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe at ``path`` with ``--set`` texts (``optim.lr=2e-4``) laid over it.

    Raises:
        RecipeError: with one line for every fault in the file and in the overrides.
    """
    return parse_recipe(_file_text(Path(path)), str(path), overrides)


def parse_recipe(text: str, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Like `load_recipe`, for a text in hand; ``source`` stands for it in messages."""
    reading = read_yaml(text)
    draft = draft_of(source, reading)
    if not isinstance(reading.value, dict):
        raise RecipeError(source, draft.faults or [_not_sections(source, reading)])
    override(draft, overrides)
    recipe, faults = check(draft)
    faults = [*draft.faults, *faults]
    if recipe is None or faults:
        raise RecipeError(source, _in_reading_order(faults, overrides))
    return recipe


def _file_text(path: Path) -> str:
    """The text of the file, or the one reason why there is none."""
    try:
        if not path.exists():
            reason = f"there is no such file; expected a recipe (YAML); {_START}"
        elif path.is_dir():
            reason = "this is a folder; expected a recipe file; name a .yaml file in it"
        elif path.stat().st_size > LARGEST_FILE:
            reason = "this is larger than 1 MB; expected a recipe, a YAML file of some 60 lines"
        else:
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8; expected a text file; save it as UTF-8"
    except (OSError, ValueError) as error:
        reason = f"this cannot be read ({getattr(error, 'strerror', None) or error})"
    raise RecipeError(str(path), [Issue(str(path), None, "", reason)])


def _not_sections(source: str, reading: Reading) -> Issue:
    """The fault of a text that is sound YAML but holds something else than sections."""
    found = "is empty" if reading.value is None else f"holds {describe(reading.value)}"
    expected = "expected sections, such as model, data and output"
    return Issue(source, reading.lines.get(()), "", f"the file {found}; {expected}; {_START}")


def _in_reading_order(faults: list[Issue], overrides: Sequence[str]) -> list[Issue]:
    """By line; then the overrides, as they were typed."""
    typed = [f"--set {text}" for text in overrides]

    def place(fault: Issue) -> tuple[int, int]:
        return (0, fault.line) if fault.line is not None else (1, typed.index(fault.source))

    return sorted(faults, key=place)
