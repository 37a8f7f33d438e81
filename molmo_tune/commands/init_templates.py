"""Bundled data templates that fit labels, the likeliest first.

The annotations decide: a track with many keyframes was drawn to be tracked, one with few to be
pointed at; spans are events; words are answers. Counting is offered only if the labels allow it,
i.e., some label has all of its objects annotated.
"""

from __future__ import annotations

from collections.abc import Sequence

from molmo_tune.labels.sample import Dialogue, Instance, Sample, Span, Track

TRACKED_KEYFRAMES = 3
"""Keyframes per track, on average, from which tracks are taken for tracking."""

TRACKING_TOKENS = 2048
"""Limit for answers with every position of a track; other answers are short."""

SHORT_TOKENS = 192


def fitting_templates(samples: Sequence[Sample]) -> list[str]:
    """Return the names of the bundled data templates that fit, the likeliest first.

    Args:
        samples: at least one.
    """
    annotations = [annotation for sample in samples for annotation in sample.annotations]
    kind = samples[0].media.kind
    first = annotations[0] if annotations else None
    if isinstance(first, Span):
        return ["event_times", "event_captions"]
    if isinstance(first, Dialogue):
        return _for_dialogues(first, kind)
    if isinstance(first, Instance) or (first is None and kind != "video"):
        several = max(len(sample.media.paths) for sample in samples) > 1
        return _for_points("multi_image" if several else "image", samples)
    tracks = [annotation for annotation in annotations if isinstance(annotation, Track)]
    num_keyframes = sum(len(track.observations) for track in tracks)
    tracking = ["tracking", "tracking_rates", "tracking_start_end", "tracking_single_point"]
    pointing = _for_points("video", samples)
    is_tracked = bool(tracks) and num_keyframes >= TRACKED_KEYFRAMES * len(tracks)
    return [*tracking, *pointing] if is_tracked else [*pointing, *tracking]


def max_answer_tokens(template: str) -> int:
    """Return the limit on tokens per answer for a bundled template."""
    is_long = template in ("tracking", "tracking_rates", "tracking_single_point")
    return TRACKING_TOKENS if is_long else SHORT_TOKENS


def _for_dialogues(first: Dialogue, kind: str) -> list[str]:
    if first.options:
        return ["multiple_choice"]
    if first.question or kind == "text":
        return ["dialogue"] if kind == "text" else ["dialogue", f"{kind}_short_answer"]
    only_videos = ["video_motion_caption", "video_transcript"] if kind == "video" else []
    return [f"{kind}_caption", f"{kind}_short_caption", *only_videos]


def _for_points(family: str, samples: Sequence[Sample]) -> list[str]:
    countable = any(sample.exhaustive_labels for sample in samples)
    counts = [f"{family}_{name}" for name in ("point_count", "count_point", "count")]
    return [f"{family}_pointing", *(counts if countable else [])]
