"""Label → answer → label: what the model is taught, read back and held against the labels.

Two things are asked of every answer. Read back, it must score full marks. And each of its points
must lie within a thousandth of the frame of a point that the labels give at that very moment or
image: this is what the text can express, so more means that somewhere a frame, a size or a time was
mistaken.
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

FARTHEST = 0.001
"""Of the frame's width or height."""

_SLACK = 1e-9
_Placed = tuple[float, float, float]  # moment or image number, then shares of width and height


def unlike_their_labels(where: str, items: Sequence[Item], seed: int) -> Iterator[Finding]:
    """Findings about answers that do not lead back to what they were made from.

    Args:
        where: in the recipe.
        items: with their answers.
        seed: of the recipe, from which random points were drawn.
    """
    missed, moved = [], []
    for item in items:
        for conversation in item.conversations:
            name = f"{item.sample.id} ({conversation.label})"
            if score_answer(item, conversation, conversation.answer).f1 < 1 - 1e-6:
                missed.append(name)  # never for an answer that has no score
            away = _farthest(item, conversation, seed)
            if away > FARTHEST + _SLACK:
                moved.append(f"{name} by {away:.4f} of the frame")
    if moved:
        text = f"{len(moved)} answers read back lie beside their labels: {examples(moved)}"
        yield Finding("error", where, text, len(moved))
    if missed:
        text = (
            f"{len(missed)} answers read back do not hit their own labels (objects smaller than a "
            f"thousandth of the frame?): {examples(missed)}"
        )
        yield Finding("warning", where, text, len(missed))


def _farthest(item: Item, conversation: Conversation, seed: int) -> float:
    """How far the answer's worst point is from the nearest label of its moment or image."""
    if not conversation.label:  # its words are the labels' own
        return 0.0
    labeled: dict[float, list[tuple[float, float]]] = {}
    for at, x, y in _labeled(item, conversation.label, seed):
        labeled.setdefault(at, []).append((x, y))
    worst = 0.0
    for at, x, y in _said(item, conversation.answer):
        beside = (max(abs(x - u), abs(y - v)) for u, v in labeled.get(at, ()))
        worst = max(worst, min(beside, default=1.0))
    return worst


def _said(item: Item, answer: str) -> list[_Placed]:
    placed = []
    for at, _, (x, y) in points_of(item, answer):
        if item.sampled is not None:
            (width, height), moment = item.sampled.size_wh, float(written_time(at))
        else:
            (width, height), moment = item.sizes_wh[int(at) - 1], at
        placed.append((moment, x / width, y / height))
    return placed


def _labeled(item: Item, label: str, seed: int) -> list[_Placed]:
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
