"""Which bundled wordings fit labels, the likeliest first, and how a recipe must sample for them.

What was drawn decides: a track with many moments was drawn to be followed, one with few to be
pointed at; events have times, words are answers. Counts are offered only where the labels allow
them: some label of which every object was annotated.
"""

from __future__ import annotations

from collections.abc import Sequence

from molmo_tune.labels.sample import Dialogue, Instance, Sample, Span, Track

FOLLOWED_MOMENTS = 3
"""A track with at least so many labeled moments, on average, was drawn to be followed."""

TRACKING_TOKENS = 2048
"""Answers that name every moment are long; other answers are not."""

SHORT_TOKENS = 192


def fitting_templates(samples: Sequence[Sample]) -> list[str]:
    """Names of bundled data templates, the likeliest first.

    Args:
        samples: at least one.
    """
    notes = [note for sample in samples for note in sample.annotations]
    medium = samples[0].media.kind
    first = notes[0] if notes else None
    if isinstance(first, Span):
        return ["event_times", "event_captions"]
    if isinstance(first, Dialogue):
        return _about_words(first, medium)
    if isinstance(first, Instance) or (first is None and medium != "video"):
        several = max(len(sample.media.paths) for sample in samples) > 1
        return _about_points("multi_image" if several else "image", samples)
    tracks = [note for note in notes if isinstance(note, Track)]
    moments = sum(len(track.observations) for track in tracks)
    following = ["tracking", "tracking_rates", "tracking_start_end", "tracking_single_point"]
    pointing = _about_points("video", samples)
    is_followed = bool(tracks) and moments >= FOLLOWED_MOMENTS * len(tracks)
    return [*following, *pointing] if is_followed else [*pointing, *following]


def answer_tokens(template: str) -> int:
    """How many tokens an answer may take."""
    is_long = template in ("tracking", "tracking_rates", "tracking_single_point")
    return TRACKING_TOKENS if is_long else SHORT_TOKENS


def _about_words(first: Dialogue, medium: str) -> list[str]:
    if first.options:
        return ["multiple_choice"]
    if first.question or medium == "text":
        return ["dialogue"] if medium == "text" else ["dialogue", f"{medium}_short_answer"]
    films = ["video_motion_caption", "video_transcript"] if medium == "video" else []
    return [f"{medium}_caption", f"{medium}_short_caption", *films]


def _about_points(family: str, samples: Sequence[Sample]) -> list[str]:
    countable = any(sample.exhaustive_labels for sample in samples)
    counts = [f"{family}_{name}" for name in ("point_count", "count_point", "count")]
    return [f"{family}_pointing", *(counts if countable else [])]
