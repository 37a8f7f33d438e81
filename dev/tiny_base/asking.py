"""How the tiny base's pre-training asks about things, and the answers it expects.

The wordings are those of the bundled pointing templates; answers are written by
`molmo_tune.grounding`, as everywhere.
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
_UNIT = (1.0, 1.0)  # things carry their places as shares of the frame


def ask_about(rng: np.random.Generator, thing: Thing) -> str:
    """One of the wordings."""
    return str(rng.choice(_QUESTIONS)).format(thing.name)


def image_answer(thing: Thing) -> str:
    """Where the thing is."""
    return format_image_points([thing.xy(thing.first_frame)], size_wh=_UNIT, label=thing.name)


def video_answer(thing: Thing) -> str:
    """When the thing is first to be seen, and where."""
    first_s = SECONDS_PER_FRAME * thing.first_frame
    sighting = (first_s, [thing.xy(thing.first_frame)])
    return format_video_points([sighting], size_wh=_UNIT, label=thing.name)
