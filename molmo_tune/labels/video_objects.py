"""Objects and events of one video, collected row by row.

All readers of video labels share this module, as readers of images share
`molmo_tune.labels.image_objects`. The video is looked up by name and opened: its timestamps turn
frame numbers into seconds, its size gives pixels a meaning. If the labels state a different size or
number of frames, the video is dropped and counted, because frame numbers would refer to the wrong
frames. Every row is counted once. A row holds for its own frame only; formats that label every n-th
frame list those frames, and `fill_gaps` adds what is between them. A label with a dropped row or a
group is not exhaustive.

A folder of frames is a video (`molmo_tune.media.frame_folder`) if it states its rate.

Limitations: does not interpolate between key frames (`molmo_tune.labels.tracks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from molmo_tune.labels.geometry.interpolation import fill_gaps
from molmo_tune.labels.geometry.shapes import SizeWH, fit, has_area
from molmo_tune.labels.image_objects import DroppedRowError, MakeShape
from molmo_tune.labels.media_source import MediaSource, MissingMediaError
from molmo_tune.labels.report import ClassTally, Tally
from molmo_tune.labels.sample import Annotation, Media, Observation, Sample, Span, Track
from molmo_tune.labels.tracks import (
    MISSING_VIDEO,
    NO_AREA,
    NO_FRAME,
    NO_LABEL,
    NOT_A_NUMBER,
    OUTSIDE_FRAME,
    OUTSIDE_VIDEO,
    SECOND_ROW,
    unique,
)
from molmo_tune.media.video import VideoInfo

NOTHING_KEPT = "no usable annotations"
OTHER_SIZE = "video size differs from the labels"
OTHER_LENGTH = "number of frames differs from the labels"
CONTINUES = "continues the event of the previous row"
ENDS_FIRST = "event ends before it starts"
OUTSIDE_TIME = "event outside the video"


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """An existing video and its frame times."""

    path: Path
    info: VideoInfo


def open_video(
    media: MediaSource,
    names: Sequence[str],
    hints: Sequence[str],
    place: str,
    tally: Tally,
    size_wh: SizeWH | None = None,
    num_frames: int | None = None,
) -> OpenVideo | None:
    """Return the video and count it as read; None, counted as dropped, if missing or different.

    Args:
        media: where to look for the video.
        names: see `MediaSource.open_video`.
        hints: see `MediaSource.open_video`.
        place: place of the video in the label file.
        tally: counts the video.
        size_wh: width and height stated by the labels.
        num_frames: number of frames stated by the labels.

    Raises:
        UserError: a name points outside the media folder, or several videos match.
    """
    counts = tally.of("", "video")
    counts.read()
    try:
        path, info = media.open_video(names, hints, place)
    except MissingMediaError as error:
        why = f"{error.found}; {error.fix}" if "rate" in error.found else error.found
        counts.drop(f"{MISSING_VIDEO} ({why})", f"{names[0]}, {place}" if names else place)
        return None
    if size_wh is not None and size_wh != info.size_wh:
        (w, h), (own_w, own_h) = size_wh, info.size_wh
        counts.drop(f"{OTHER_SIZE} (labels {w}x{h}, video {own_w}x{own_h})", place)
        return None
    if num_frames is not None and num_frames != info.num_frames:
        counts.drop(f"{OTHER_LENGTH} (labels {num_frames}, video {info.num_frames})", place)
        return None
    return OpenVideo(path, info)


@dataclass(slots=True)
class _Object:
    label: str
    kind: str
    seen: dict[int, Observation] = field(default_factory=dict)


class VideoObjects:
    """Collector of the objects and events of one video.

    Args:
        video: the video, None if missing; all rows are then dropped.
        tally: counts every row.
        place: place of the video in the label file, for the report.
    """

    def __init__(self, video: OpenVideo | None, tally: Tally, place: str) -> None:
        self._video, self._tally, self._place = video, tally, place
        self._objects: dict[tuple[str, str], _Object] = {}
        self._spans: list[Span] = []
        self._incomplete: set[str] = set()

    def add(
        self,
        label: str,
        kind: str,
        id: str,
        frame_index: int | None,
        place: str,
        make: MakeShape,
        *,
        occluded: bool = False,
    ) -> None:
        """Add one row: one object in one frame.

        Args:
            label: class label.
            kind: name of the shape in the report.
            id: id of the object in the video.
            frame_index: 0-based; None if the row does not state it.
            place: ``file:line`` or an id.
            make: returns the shape in pixels, given the frame size; raises `DroppedRowError`.
            occluded: present but hidden.
        """
        counts = self.read(label, kind)
        try:
            observation, is_clipped = self._observe(label, frame_index, make, occluded)
            entry = self._objects.setdefault((id, label), _Object(label, kind))
            if observation.frame_index in entry.seen:
                raise DroppedRowError(SECOND_ROW)
        except DroppedRowError as error:
            self._drop(counts, str(error), place)
            return
        entry.seen[observation.frame_index] = observation
        counts.keep(clipped=is_clipped)

    def span(self, label: str, start_s: float | None, end_s: float | None, place: str) -> None:
        """Add one event, in seconds; None for an invalid time."""
        counts = self.read(label, "span")
        reason = self._span_problem(label, start_s, end_s)
        if reason or self._video is None or start_s is None or end_s is None:
            self._drop(counts, reason, place)
            return
        last_s = self._video.info.duration_s
        counts.keep(clipped=end_s > last_s)
        self._spans.append(Span(label, start_s, min(end_s, last_s)))

    def merged(self, label: str, place: str) -> None:
        """Count a row that only continues the event of the previous row."""
        self.read(label, "span").skip(CONTINUES, place)

    def frame_time(self, frame_index: int) -> float | None:
        """Return the start of a frame in seconds, None if the video has no such frame."""
        starts = self._video.info.starts_s if self._video else ()
        return starts[frame_index] if 0 <= frame_index < len(starts) else None

    def frame_end(self, frame_index: int) -> float | None:
        """Return the end of a frame in seconds, None if the video has no such frame."""
        if self._video is None or self.frame_time(frame_index) is None:
            return None
        after = self.frame_time(frame_index + 1)
        return self._video.info.duration_s if after is None else after

    def drop(self, label: str, kind: str, place: str, reason: str) -> None:
        """Count a row as dropped."""
        self._drop(self.read(label, kind), reason, place)

    def skip(self, label: str, kind: str, place: str, reason: str, *, absent: bool = False) -> None:
        """Count a row that says the object is absent, or that is not a single object."""
        self.read(label, kind).skip(reason, place)
        if not absent:
            self._incomplete.add(label)

    def corrected(self, label: str, kind: str, reason: str, place: str) -> None:
        """Count a row that was changed in order to be kept."""
        self._tally.of(label, kind).correct(reason, place)

    def read(self, label: str, kind: str) -> ClassTally:
        """Count one row as read; return the counts of its label and kind."""
        counts = self._tally.of(label, kind)
        counts.read()
        return counts

    @property
    def spans(self) -> list[Span]:
        """Events added so far."""
        return self._spans

    def sample(
        self, exhaustive: Iterable[str] = (), labeled_frames: Iterable[int] | None = None
    ) -> Sample | None:
        """Return the sample, or None (counted) without a video or annotations.

        Args:
            exhaustive: labels whose objects are all annotated, as the format promises.
            labeled_frames: indices of the labeled frames, unless all were labeled.
        """
        if self._video is None:
            return None
        ids: dict[str, int] = {}
        tracks = [
            Track(unique(id, ids), entry.label, self._observations(entry, labeled_frames))
            for (id, _), entry in self._objects.items()
            if entry.seen
        ]
        complete = tuple(dict.fromkeys(x for x in exhaustive if x not in self._incomplete))
        annotations: tuple[Annotation, ...] = (*tracks, *self._spans)
        return closed_sample(self._video, annotations, self._place, self._tally, complete)

    def _observations(
        self, entry: _Object, labeled_frames: Iterable[int] | None
    ) -> tuple[Observation, ...]:
        assert self._video is not None
        labeled = [entry.seen[index] for index in sorted(entry.seen)]
        if labeled_frames is None:
            return tuple(labeled)
        added = fill_gaps(labeled, sorted(set(labeled_frames)), self._video.info)
        for _ in added:
            self._tally.of(entry.label, entry.kind).interpolate()
        return tuple(sorted((*labeled, *added), key=lambda o: o.frame_index))

    def _observe(
        self, label: str, frame_index: int | None, make: MakeShape, occluded: bool
    ) -> tuple[Observation, bool]:
        if self._video is None:
            raise DroppedRowError(MISSING_VIDEO)
        if not label:
            raise DroppedRowError(NO_LABEL)
        if frame_index is None:
            raise DroppedRowError(NO_FRAME)
        info = self._video.info
        if not 0 <= frame_index < len(info.starts_s):
            raise DroppedRowError(OUTSIDE_VIDEO)
        original = make(info.size_wh)
        shape, is_clipped = fit(original, info.size_wh)
        if shape is None:
            raise DroppedRowError(OUTSIDE_FRAME if has_area(original) else NO_AREA)
        return Observation(info.starts_s[frame_index], frame_index, shape, occluded), is_clipped

    def _span_problem(self, label: str, start_s: float | None, end_s: float | None) -> str:
        if self._video is None:
            return MISSING_VIDEO
        if not label:
            return NO_LABEL
        if start_s is None or end_s is None or start_s < 0:
            return NOT_A_NUMBER if start_s is None or end_s is None else OUTSIDE_TIME
        if end_s < start_s:
            return ENDS_FIRST
        return OUTSIDE_TIME if start_s >= self._video.info.duration_s else ""

    def _drop(self, counts: ClassTally, reason: str, place: str) -> None:
        counts.drop(reason, place)
        self._incomplete.add(counts.label)


def closed_sample(
    video: OpenVideo,
    annotations: tuple[Annotation, ...],
    place: str,
    tally: Tally,
    exhaustive: tuple[str, ...] = (),
) -> Sample | None:
    """Return the sample of a video, or None without annotations; count the video either way."""
    counts = tally.of("", "video")
    if not annotations and not exhaustive:
        counts.skip(NOTHING_KEPT, place)
        return None
    counts.keep()
    path, info = video.path, video.info
    media = Media("video", (path,), info.size_wh, info.duration_s)
    return Sample(_name_of(path), media, annotations, exhaustive)


def _name_of(path: Path) -> str:
    """Return a file's name without its extension, or the name of a folder's sequence."""
    if not path.is_dir():
        return path.stem
    return path.parent.name if path.name == "img1" else path.name
