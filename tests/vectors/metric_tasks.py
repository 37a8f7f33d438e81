"""Tasks of ``metric-vectors.json``: tracking, pointing and counting scores from answer text.

Boxes represent masks: ``(left, top, right, bottom)`` sets the pixels from left to right - 1.

Uses of the reference's quirks (``ai2_compat``):

* tracking: only when some frame lacks a point of an object that has a mask, because only then do
  the two ways of pairing differ;
* counting: only for answers that say "none" or begin with "There are", which the reference
  misreads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from molmo_tune.grounding import (
    MaskRegion,
    PointingScore,
    by_frame,
    parse_count,
    parse_points,
    parse_tracks,
    score_image_pointing,
    score_tracking,
    score_video_count,
    score_video_pointing,
)

Input = dict[str, Any]


def _mask(box: Sequence[int], size_wh: tuple[int, int]) -> MaskRegion:
    mask = np.zeros((size_wh[1], size_wh[0]), dtype=bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return MaskRegion(mask)


def _size(given: Input) -> tuple[int, int]:
    return given["width"], given["height"]


def tracking_metrics(given: Input) -> dict[str, float]:
    size_wh = _size(given)
    truth = {
        int(frame): {object_id: (xy[0], xy[1]) for object_id, xy in points.items()}
        for frame, points in given["gt"].items()
    }
    regions = {
        object_id: {frame: _mask(box, size_wh) for frame, box in enumerate(boxes) if box}
        for object_id, boxes in given["mask_boxes"].items()
    }
    parsed = parse_tracks(given["text"], size_wh=size_wh, video_fps=given["video_fps"])
    score = score_tracking(
        by_frame(parsed),
        truth,
        regions,
        ai2_compat=any(set(points) != set(regions) for points in truth.values()),
    )
    return {
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "HOTA": score.hota.hota,
        "DetA": score.hota.det_a,
        "AssA": score.hota.ass_a,
        "DetPr": score.hota.det_pr,
        "DetRe": score.hota.det_re,
    }


def _three(score: PointingScore) -> dict[str, float]:
    return {"precision": score.precision, "recall": score.recall, "f1": score.f1}


def image_pointing_f1(given: Input) -> dict[str, float]:
    size_wh = _size(given)
    predicted = [point.xy_px for point in parse_points(given["text"], size_wh=size_wh)]
    regions = [_mask(box, size_wh) for box in given["mask_boxes"]]
    return _three(score_image_pointing(predicted, given["gt_points"], regions))


def video_pointing_f1(given: Input) -> dict[str, float]:
    size_wh = _size(given)
    parsed = parse_points(given["text"], size_wh=size_wh)
    objects = [
        {time: _mask(each["box"], size_wh) for time in each["times"]} for each in given["objects"]
    ]
    score = score_video_pointing(
        [(point.frame_id, *point.xy_px) for point in parsed],
        given["gt_triplets"],
        objects,
        duration_s=given["duration"],
        size_wh=size_wh,
    )
    return _three(score)


def video_count(given: Input) -> Input:
    misread = re.search(r"\bnone\b|^\s*there are\b", given["text"].lower()) is not None
    score = score_video_count(parse_count(given["text"], ai2_compat=misread), given["gt"])
    return {
        "pred": score.predicted,
        "valid": score.is_valid,
        "correct": score.is_correct,
        "close": score.is_close,
    }


TASKS: dict[str, Callable[[Input], Any]] = {
    "tracking_metrics": tracking_metrics,
    "image_pointing_f1": image_pointing_f1,
    "video_pointing_f1": video_pointing_f1,
    "video_count": video_count,
}
