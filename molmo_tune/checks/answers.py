"""Round trip label → answer → label: the training answers, parsed and compared with the labels.

Every answer must meet two conditions. Its score against its own labels must be perfect. And each of
its points must be within a thousandth of the frame (the resolution of the text) of a labeled point
at the same time or on the same image. A larger distance means a wrong frame, size or time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from molmo_tune.checks.finding import Finding, examples
from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.answer_points import points_of
from molmo_tune.evaluation.scoring import score_answer
from molmo_tune.grounding.times import written_time
from molmo_tune.labels.geometry.points import shape_point
from molmo_tune.labels.sample import Instance
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.visible import visible_tracks
from molmo_tune.units import count, percent

MAX_DISTANCE = 0.001
"""Fraction of the width or height of the frame."""

_SLACK = 1e-9
_PlacedPoint = tuple[float, float, float]  # time or image number, fractions of width and height


def check_answers(where: str, items: Sequence[Item], seed: int) -> Iterator[Finding]:
    """Yield findings about answers that do not match their own labels.

    Args:
        where: key in the recipe.
        items: with their answers.
        seed: of the recipe, which decides random points.
    """
    imperfect, moved = [], []
    for item in items:
        for conversation in item.conversations:
            name = f"{item.sample.id} ({conversation.label})"
            if score_answer(item, conversation, conversation.answer).f1 < 1 - 1e-6:
                imperfect.append(name)  # not for an answer without a score: its F1 is NaN
            distance = _largest_distance(item, conversation, seed)
            if distance > MAX_DISTANCE + _SLACK:
                moved.append(f"{name} by {percent(distance, 2)} of the frame")
    if moved:
        number = count(len(moved), "answer")
        text = f"{number} parsed to points off their labels: {examples(moved)}"
        yield Finding("error", where, text, len(moved))
    if imperfect:
        text = (
            f"{count(len(imperfect), 'answer')} scored below 1 against their own labels (objects "
            f"smaller than a thousandth of the frame?): {examples(imperfect)}"
        )
        yield Finding("warning", where, text, len(imperfect))


def _largest_distance(item: Item, conversation: Conversation, seed: int) -> float:
    """Return the largest distance of an answer's point from the nearest label, as a fraction."""
    if not conversation.label:  # the labels contain the text of the answer
        return 0.0
    labeled: dict[float, list[tuple[float, float]]] = {}
    for at, x, y in _labeled(item, conversation.label, seed):
        labeled.setdefault(at, []).append((x, y))
    worst = 0.0
    for at, x, y in _parsed(item, conversation.answer):
        distances = (max(abs(x - u), abs(y - v)) for u, v in labeled.get(at, ()))
        worst = max(worst, min(distances, default=1.0))
    return worst


def _parsed(item: Item, answer: str) -> list[_PlacedPoint]:
    placed = []
    for at, _, (x, y) in points_of(item, answer):
        if item.sampled is not None:
            (width, height), place = item.sampled.size_wh, float(written_time(at))
        else:
            (width, height), place = item.sizes_wh[int(at) - 1], at
        placed.append((place, x / width, y / height))
    return placed


def _labeled(item: Item, label: str, seed: int) -> list[_PlacedPoint]:
    rule = item.template.point
    if item.sampled is not None:
        width, height = item.sampled.size_wh
        return [
            (float(written_time(seen.time_s)), seen.xy_px[0] / width, seen.xy_px[1] / height)
            for track in visible_tracks(item.sample, label, item.sampled, rule, seed)
            for seen in track.sightings
        ]
    placed = []
    for note in item.sample.annotations:
        if isinstance(note, Instance) and note.label == label:
            size = item.sizes_wh[note.image_index]
            xy = shape_point(note.shape, size, rule, f"{seed}:{item.sample.id}:{note.id}")
            if xy is not None:
                placed.append((note.image_index + 1.0, xy[0] / size[0], xy[1] / size[1]))
    return placed
