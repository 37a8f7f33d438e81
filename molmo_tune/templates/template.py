"""Data templates: the user's words around the package's numbers.

A template is a small YAML file: which task the labels serve, several wordings of the question, and
how the label is written in the answer. Wordings are Jinja, rendered in a sandbox in which a
misspelt variable is an error. Which wording a sample gets is drawn from the recipe's seed, the
sample and the label, so every epoch, worker and machine agrees.

What it does not do: write coordinates (`molmo_tune.grounding`) or know tokens.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from molmo_tune.errors import UserError
from molmo_tune.recipe.bundled import bundled

Task = Literal["video_pointing", "image_pointing", "tracking", "dialogue"]
PointMode = Literal["point", "point_count", "count_point", "count"]

_JINJA = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


class Template(BaseModel):
    """The contents of a template file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task
    questions: tuple[str, ...] = Field(min_length=1)
    mode: PointMode = "point"
    answer_label: str = "{{ label }}"
    fps: int = Field(default=2, ge=1, le=10)


def load_template(name: str) -> Template:
    """Read a bundled template by name, or the user's own by path.

    Raises:
        UserError: unknown name, no YAML, an unknown key, or a wording that does not render.
    """
    return _load(bundled("data_templates", name))


@lru_cache(maxsize=64)
def _load(path: Path) -> Template:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        template = Template.model_validate(raw)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(path, f"not a readable template ({error})") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'template'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise UserError(path, faults, "the keys of a bundled template") from error
    probe = {"label": "thing", "fps": template.fps, "question": "What?"}
    for wording in (*template.questions, template.answer_label):
        render(wording, probe, where=str(path))
    return template


def draw_question(template: Template, seed: int, sample_id: str, variables: dict[str, Any]) -> str:
    """The wording this sample gets, with its variables filled in."""
    key = f"{seed}:{sample_id}:{variables.get('label', '')}"
    wording = random.Random(key).choice(template.questions)
    return render(wording, variables, where=f"template question for {sample_id}")


def render(wording: str, variables: dict[str, Any], *, where: str) -> str:
    """Fill in a Jinja wording.

    Raises:
        UserError: syntax error, unknown variable, or something the sandbox forbids.
    """
    try:
        return _JINJA.from_string(wording).render(**variables)
    except (TemplateError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            where,
            f"{wording!r} does not render ({error})",
            "Jinja with the variables label, fps (tracking) or question (dialogue)",
        ) from error
