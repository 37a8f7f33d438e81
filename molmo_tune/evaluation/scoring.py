"""The scoring rule of each task.

The rules are in `molmo_tune.evaluation.object_scoring` and `molmo_tune.evaluation.text_scoring`,
the formulas in `molmo_tune.grounding`. Every task has a rule; captions have one without a score.
"""

from __future__ import annotations

from collections.abc import Callable

from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.object_scoring import (
    score_continued_track,
    score_image_points,
    score_tracks,
    score_video_points,
)
from molmo_tune.evaluation.scores import Score, no_score
from molmo_tune.evaluation.text_scoring import score_choice, score_dialogue, score_event_times
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.template import Task

Rule = Callable[[Item, Conversation, str], Score]


def _unscored(item: Item, conversation: Conversation, text: str) -> Score:
    return no_score(item.template.task)


_RULES: dict[Task, Rule] = {
    "image_pointing": score_image_points,
    "video_pointing": score_video_points,
    "tracking": score_tracks,
    "tracking_start_end": score_tracks,
    "single_point_tracking": score_continued_track,
    "event_times": score_event_times,
    "event_captions": _unscored,
    "captions": _unscored,
    "dialogue": score_dialogue,
    "multiple_choice": score_choice,
}


def score_answer(item: Item, conversation: Conversation, text: str) -> Score:
    """Score a text as the answer to one question of an item."""
    return _RULES[item.template.task](item, conversation, text)
