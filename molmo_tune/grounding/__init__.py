"""Molmo 2's grounding text, formatted and parsed in one place, and the metrics of its contents.

`text` formats and parses points and tracks, `times` their times, and `spans` events. `tracks`
chooses the frames of a track answer. `pointing`, `counting`, `tracking`, `tapvid`, `temporal`,
`segmentation` and `answers` hold the metrics. Everything is a pure function of its arguments, needs
at most numpy and scipy, and does not depend on label files, prompts or the model.
"""

from molmo_tune.grounding.answers import (
    anls,
    exact_match,
    format_options,
    read_choice,
    relaxed_accuracy,
)
from molmo_tune.grounding.counting import (
    CountAccuracy,
    CountScore,
    count_accuracy,
    parse_count,
    score_image_count,
    score_video_count,
)
from molmo_tune.grounding.pointing import (
    BoxRegion,
    EllipseRegion,
    MaskRegion,
    Mean,
    PointingScore,
    Region,
    disc_around,
    is_pointbench_correct,
    is_screenspot_correct,
    mean_with_interval,
    score_image_pointing,
    score_video_pointing,
)
from molmo_tune.grounding.spans import NO_SPANS, format_spans, parse_spans
from molmo_tune.grounding.tapvid import TapVidScore, score_tapvid
from molmo_tune.grounding.temporal import (
    ScoredSpan,
    average_precision,
    match_spans,
    mean_average_precision,
    recall_at_iou,
    span_iou,
)
from molmo_tune.grounding.text import (
    NO_POINTS,
    NO_TRACKS,
    Mode,
    ParsedPoint,
    ParsedTrackFrame,
    count_out_of_frame,
    format_image_points,
    format_multi_image_points,
    format_tracks,
    format_video_points,
    input_points,
    parse_multi_image_points,
    parse_points,
    parse_tracks,
)
from molmo_tune.grounding.times import Time, format_time, read_time, written_time
from molmo_tune.grounding.tracking import HotaScore, TrackingScore, by_frame, score_tracking
from molmo_tune.grounding.tracks import (
    TrackFrame,
    TrackPoint,
    from_initial_points,
    start_end_only,
)

__all__ = [
    "NO_POINTS",
    "NO_SPANS",
    "NO_TRACKS",
    "BoxRegion",
    "CountAccuracy",
    "CountScore",
    "EllipseRegion",
    "HotaScore",
    "MaskRegion",
    "Mean",
    "Mode",
    "ParsedPoint",
    "ParsedTrackFrame",
    "PointingScore",
    "Region",
    "ScoredSpan",
    "TapVidScore",
    "Time",
    "TrackFrame",
    "TrackPoint",
    "TrackingScore",
    "anls",
    "average_precision",
    "by_frame",
    "count_accuracy",
    "count_out_of_frame",
    "disc_around",
    "exact_match",
    "format_image_points",
    "format_multi_image_points",
    "format_options",
    "format_spans",
    "format_time",
    "format_tracks",
    "format_video_points",
    "from_initial_points",
    "input_points",
    "is_pointbench_correct",
    "is_screenspot_correct",
    "match_spans",
    "mean_average_precision",
    "mean_with_interval",
    "parse_count",
    "parse_multi_image_points",
    "parse_points",
    "parse_spans",
    "parse_tracks",
    "read_choice",
    "read_time",
    "recall_at_iou",
    "relaxed_accuracy",
    "score_image_count",
    "score_image_pointing",
    "score_tapvid",
    "score_tracking",
    "score_video_count",
    "score_video_pointing",
    "span_iou",
    "start_end_only",
    "written_time",
]
