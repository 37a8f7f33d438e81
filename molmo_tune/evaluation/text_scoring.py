"""Scores of text answers: dialogues, multiple choice and event times.

*Dialogues* are compared with the labeled answer: exactly, by edit distance (ANLS), and with a 5%
tolerance on numbers; precision, recall and F1 are the exact match. *Multiple choice* is right if
the answer names the right option, by letter or text. *Event times* are paired one to one with the
labeled spans; a pair is a hit if its overlap (IoU) is at least 0.5. In addition to F1 there are the
mean best IoU and the recall at three thresholds.

*Captions* are not scored: word overlap says little about a description, and there is no judge
model.
"""

from __future__ import annotations

from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.scores import Score, match_score, pointing_score
from molmo_tune.evaluation.truth import clip_of
from molmo_tune.grounding.answers import anls, exact_match, read_choice, relaxed_accuracy
from molmo_tune.grounding.pointing import score_hits
from molmo_tune.grounding.spans import parse_spans
from molmo_tune.grounding.temporal import match_spans, recall_at_iou, span_iou
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.events import written_spans

HIT_IOU = 0.5
RECALL_IOUS = (0.3, 0.5, 0.7)


def score_dialogue(item: Item, conversation: Conversation, text: str) -> Score:
    """Score a short text answer."""
    accepted = [conversation.answer]
    match = exact_match(text, accepted)
    more = {
        "exact_match": match,
        "anls": anls(text, accepted),
        "relaxed_accuracy": relaxed_accuracy(text, accepted),
    }
    return match_score(item.template.task, match, more)


def score_choice(item: Item, conversation: Conversation, text: str) -> Score:
    """Score a multiple-choice answer."""
    right = read_choice(conversation.answer, conversation.options)
    is_right = float(read_choice(text, conversation.options) == right)
    return match_score(item.template.task, is_right, {"choice_accuracy": is_right})


def score_event_times(item: Item, conversation: Conversation, text: str) -> Score:
    """Score the time spans in an answer."""
    truth, _ = written_spans(item.sample, conversation.label, clip_of(item))
    predicted = parse_spans(text)
    best = [max((span_iou(guess, span) for guess in predicted), default=0.0) for span in truth]
    more = {"span_iou": sum(best) / len(best) if best else float(not predicted)}
    more |= {f"recall_at_{iou}": recall_at_iou(predicted, truth, iou=iou) for iou in RECALL_IOUS}
    hits = match_spans(predicted, truth, iou=HIT_IOU)
    score = score_hits(hits, len(predicted), len(truth))
    return pointing_score(item.template.task, score, more)
