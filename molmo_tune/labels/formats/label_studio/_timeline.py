"""Label Studio's ``timelinelabels``: labeled ranges of frames of a video.

    {"type": "timelinelabels", "value": {"timelinelabels": ["goal"],
                                         "ranges": [{"start": 1, "end": 10}]}}

Frames count from 1 and both ends are included: an event lasts from the start of its first frame to
the end of its last. The file has no frame rate; times come from the video.
`formats.label_studio.label_studio_video` calls this module, because a video can have both kinds of
regions.
"""

from __future__ import annotations

from molmo_tune.labels.formats.label_studio._tasks import Region
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Span
from molmo_tune.labels.tracks import MISSING_VIDEO, NO_FRAME, NO_LABEL, OUTSIDE_VIDEO
from molmo_tune.media.video import VideoInfo

TIMELINE = "timelinelabels"
NO_RANGES = "region without ranges"
ENDS_FIRST = "event ends before it starts"


def timeline_spans(region: Region, info: VideoInfo | None, tally: Tally) -> list[Span]:
    """Return the events of a region, one per label and range; without a video, all are dropped."""
    found = []
    ranges = region.value.get("ranges")
    for label in region.labels or ("",):
        for number, limits in enumerate(ranges if isinstance(ranges, list) and ranges else [None]):
            counts, place = tally.of(label, "span"), f"{region.place}, range {number + 1}"
            counts.read()
            span = _span(label, limits, info)
            if isinstance(span, str):
                counts.drop(span, place)
            else:
                counts.keep()
                found.append(span)
    return found


def _span(label: str, limits: object, info: VideoInfo | None) -> Span | str:
    """Return the event, or the reason to drop it."""
    if info is None or not label:
        return NO_LABEL if info is not None else MISSING_VIDEO
    if not isinstance(limits, dict):
        return NO_RANGES
    first, last = limits.get("start"), limits.get("end")
    if type(first) is not int or type(last) is not int:
        return NO_FRAME
    if last < first:
        return ENDS_FIRST
    if not first >= 1 or last > info.num_frames:
        return OUTSIDE_VIDEO
    end_s = info.starts_s[last] if last < info.num_frames else info.duration_s
    return Span(label, info.starts_s[first - 1], end_s)
