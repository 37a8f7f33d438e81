"""Data templates: the user's words around the package's numbers.

A template is a small YAML file: the task of the labels, several phrasings of the question, and the
form of the answers. The recipe's seed, the sample and the label determine the phrasing of each
question (`molmo_tune.templates.wording`).

A key that does not apply to the task, a phrasing without the variable that its question needs, and
a variable that the task does not have are errors when the file is read, not when training runs.
`molmo_tune.grounding` writes coordinates; this module knows nothing of tokens.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from molmo_tune.errors import UserError
from molmo_tune.labels.geometry.points import DEFAULT_RULE, RULES
from molmo_tune.recipe.bundled import bundled
from molmo_tune.recipe.issues import KeyPath, dotted
from molmo_tune.recipe.yaml_lines import Reading, read_yaml
from molmo_tune.templates.wording import quoted, render, variables_of

Task = Literal[
    "image_pointing",
    "video_pointing",
    "tracking",
    "tracking_start_end",
    "single_point_tracking",
    "event_times",
    "event_captions",
    "captions",
    "dialogue",
    "multiple_choice",
]
PointMode = Literal["point", "point_count", "count_point", "count"]
CaptionStyle = Literal[
    "long_caption",
    "short_caption",
    "video_long_caption",
    "video_short_caption",
    "video_merged_caption",
    "video_motion_caption",
    "video_transcript",
]
Rate = Annotated[int, Field(ge=1, le=10, strict=True)]
DEFAULT_FPS = 2  # the rate of a tracking question that does not state one

_POINTING = ("image_pointing", "video_pointing")
_TRACKING = ("tracking", "tracking_start_end", "single_point_tracking")

# Variables of a task's questions: required in every phrasing, and optional.
_VARIABLES: dict[Task, tuple[frozenset[str], frozenset[str]]] = {
    "image_pointing": (frozenset({"label"}), frozenset({"images"})),
    "video_pointing": (frozenset({"label"}), frozenset()),
    "tracking": (frozenset({"label"}), frozenset({"fps"})),
    "tracking_start_end": (frozenset({"label"}), frozenset()),
    "single_point_tracking": (frozenset({"input_points"}), frozenset({"label", "fps"})),
    "event_times": (frozenset({"label"}), frozenset()),
    "event_captions": (frozenset({"start", "end"}), frozenset()),
    "captions": (frozenset(), frozenset()),
    "dialogue": (frozenset({"question"}), frozenset()),
    "multiple_choice": (frozenset({"question", "options"}), frozenset()),
}
# Keys that apply to some tasks only.
_TASKS_WITH: dict[str, tuple[str, ...]] = {
    "mode": _POINTING,
    "answer_label": (*_POINTING, *_TRACKING),
    "point": (*_POINTING, *_TRACKING),
    "max_points": (*_POINTING, *_TRACKING),
    "assume_exhaustive": _POINTING,
    "ask_absent": (*_POINTING, "tracking", "tracking_start_end", "event_times"),
    "fps": ("tracking", "single_point_tracking"),
    "style": ("captions", "dialogue", "multiple_choice", "event_times"),
    "choice": ("multiple_choice",),
}


class Template(BaseModel):
    """The contents of a template file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task
    questions: tuple[str, ...] = Field(min_length=1)
    """Phrasings; one is chosen at random per sample and label."""
    mode: PointMode = "point"
    """Point only, point and then count, count and then point, or count only."""
    answer_label: str = "{{ label }}"
    """The label as the answer spells it."""
    point: str = Field(default=DEFAULT_RULE, pattern=RULES)
    """The point of a shape: ``interior`` (always inside), ``center`` (of its box),
    ``random_in_mask`` or ``keypoint:NAME``, see `geometry.points`."""
    max_points: int = Field(default=60, ge=1, strict=True)
    """Maximum points per answer; labels with more are skipped. Tracks have no limit unless set."""
    assume_exhaustive: bool = Field(default=False, strict=True)
    """Count labels even if the label file does not call them exhaustive."""
    ask_absent: int = Field(default=0, ge=0, strict=True)
    """Number of questions per sample about absent exhaustive labels; the answer says so."""
    fps: tuple[Rate, ...] = Field(default=(DEFAULT_FPS,), min_length=1)
    """Rates of tracks in positions per second; one that the sampled frames cover is chosen."""
    style: str = Field(default="", pattern="^[a-z0-9_]*$")
    """Style of the question in training; empty: the annotation's or the task's own."""
    choice: Literal["option", "letter", "text"] = "option"
    """Form of a multiple-choice answer: ``B. blue``, ``B`` or ``blue``."""

    @field_validator("fps", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return value if isinstance(value, list | tuple) else (value,)

    @model_validator(mode="after")
    def _belongs_together(self) -> Template:
        for key in sorted(self.model_fields_set & set(_TASKS_WITH)):
            if self.task not in _TASKS_WITH[key]:
                raise ValueError(f"{key} does not apply to task {self.task}")
        if self.assume_exhaustive and not self.counts:
            raise ValueError("assume_exhaustive needs a mode that counts, not point")
        if self.task == "captions" and self.style not in get_args(CaptionStyle):
            raise ValueError(f"captions need a style: {', '.join(get_args(CaptionStyle))}")
        needs_fps = set(self.fps) != {DEFAULT_FPS}
        if needs_fps and not any("fps" in variables_of(wording) for wording in self.questions):
            raise ValueError(
                f"fps is not {DEFAULT_FPS} and no question contains {{{{ fps }}}}: "
                "the model would not know the rate"
            )
        return self

    @property
    def point_limit(self) -> float:
        """Maximum points in an answer; infinite for tracks unless the template limits them."""
        limited = self.task in _POINTING or "max_points" in self.model_fields_set
        return self.max_points if limited else math.inf

    @property
    def base_fps(self) -> int:
        """The rate that sampling should cover: the first rate of a tracking task, otherwise 1."""
        return self.fps[0] if self.task in _TASKS_WITH["fps"] else 1

    @property
    def counts(self) -> bool:
        """Whether answers state a number of objects."""
        return self.mode != "point"


def load_template(name: str) -> Template:
    """Read a bundled template by name, or a user's template by path.

    Raises:
        UserError: unknown name, invalid YAML, an unknown key, or a phrasing that does not render.
    """
    return _load(bundled("data_templates", name))


@lru_cache(maxsize=64)
def _load(path: Path) -> Template:
    reading = _reading(path)
    try:
        template = Template.model_validate(reading.value)
    except ValidationError as error:
        problems = [
            (tuple(one["loc"]), one["msg"].removeprefix("Value error, ")) for one in error.errors()
        ]
        raise _error_at(path, reading, problems) from error
    except UserError as error:
        raise UserError(path, f"{error.where} {error.found}", error.expected, error.fix) from error
    required, optional = _VARIABLES[template.task]
    for number, wording in enumerate(template.questions):
        where = f"{path}:{reading.lines.get(('questions', number), 1)}"
        _check_wording(where, wording, required, optional)
    _check_wording(path, template.answer_label, frozenset(), frozenset({"label"}))
    return template


def _reading(path: Path) -> Reading:
    try:
        reading = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"not a readable template ({error})") from error
    if reading.faults:
        raise _error_at(path, reading, [(one.path, one.reason) for one in reading.faults])
    if not isinstance(reading.value, dict):
        raise UserError(path, "not a template", "keys such as task and questions")
    return reading


def _error_at(path: Path, reading: Reading, problems: list[tuple[KeyPath, str]]) -> UserError:
    shown = [
        f"line {reading.lines[place]}: {dotted(place)}: {reason}"
        if place and place in reading.lines
        else ": ".join(filter(None, (dotted(place), reason)))
        for place, reason in problems
    ]
    return UserError(path, "; ".join(shown), "the keys of a bundled template")


def _check_wording(
    where: object, wording: str, required: frozenset[str], optional: frozenset[str]
) -> None:
    try:
        used = variables_of(wording)
    except UserError as error:
        raise UserError(where, f"{error.where} {error.found}", error.expected) from error
    known = required | optional
    if used - known:
        names, listed = ", ".join(sorted(used - known)), ", ".join(sorted(known)) or "no variables"
        raise UserError(where, f"{quoted(wording)} has unknown variables: {names}", listed)
    if required - used:
        names = ", ".join(sorted(required - used))
        expected = " and ".join(f"{{{{ {name} }}}}" for name in sorted(required))
        raise UserError(where, f"{quoted(wording)} lacks {names}", f"{expected} in every question")
    if not render(wording, dict.fromkeys(known, "1"), where=str(where)).strip():
        raise UserError(where, f"{quoted(wording)} is empty", "a text")
