"""Questions about objects in the tiny base's pre-training, and their answers.

The questions match the bundled pointing templates; `molmo_tune.grounding` formats the answers, as
everywhere.
"""

from __future__ import annotations

import numpy as np

from molmo_tune.grounding.text import format_image_points, format_video_points
from molmo_tune.tiny.shapes import Thing

SECONDS_PER_FRAME = 0.5
_QUESTIONS = (
    "Point to the {}.",
    "Point at the {}.",
    "Find the {}.",
    "Locate the {}.",
    "Where is the {}?",
    "Show me the {}.",
    "Please point to the {}.",
    "Mark the {}.",
)
_UNIT = (1.0, 1.0)  # positions are fractions of the frame


def ask_about(rng: np.random.Generator, thing: Thing) -> str:
    """Return one of the questions."""
    return str(rng.choice(_QUESTIONS)).format(thing.name)


def image_answer(thing: Thing) -> str:
    """Return the answer that points at the object."""
    return format_image_points([thing.xy(thing.first_frame)], size_wh=_UNIT, label=thing.name)


def video_answer(thing: Thing) -> str:
    """Return the answer with the time and position at which the object first appears."""
    first_s = SECONDS_PER_FRAME * thing.first_frame
    sighting = (first_s, [thing.xy(thing.first_frame)])
    return format_video_points([sighting], size_wh=_UNIT, label=thing.name)
