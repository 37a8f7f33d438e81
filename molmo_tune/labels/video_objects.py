"""The objects and events of one video, collected row by row, and the video they lie on.

What readers of video labels share is here, as `molmo_tune.labels.image_objects` is for images. A
video is looked up by its name and opened: its own timestamps make seconds of frame numbers, its
size makes sense of pixels. If the labels state another size or number of frames, the video is
dropped and counted: the frame numbers would point at other pictures. Every row is counted once.
Rows stand for their own frame only; formats that label every n-th frame name those frames, and
`filled` says what happens between them. A label of which a row was lost, or was only a group, is
not exhaustive.

A folder of pictures is a video (`molmo_tune.media.frame_folder`), if it states its rate.

What it does not do: draw lines between key frames (`molmo_tune.labels.tracks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from molmo_tune.labels.geometry.interpolation import filled
from molmo_tune.labels.geometry.shapes import SizeWH, fit, has_area
from molmo_tune.labels.image_objects import LostError, MakeShape
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
    """A video that is there."""

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
    """The video, counted as read; None, and counted as dropped, when it is not there or another.

    Args:
        media: where it lies.
        names: see `MediaSource.open_video`.
        hints: see there.
        place: of the video in the label file.
        tally: counts it.
        size_wh: as the labels state it.
        num_frames: as the labels state it.

    Raises:
        UserError: a name climbs out of the media folder, or several videos fit.
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
    """Collects the objects and events of one video.

    Args:
        video: None when it is missing; its rows are then counted as lost.
        tally: counts every row.
        place: of the video in the label file.
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
        """One row: one object in one frame.

        Args:
            label: its class.
            kind: word for its shape in the report.
            id: of the object in the video.
            frame_index: 0-based; None when the row does not say.
            place: ``file:line`` or an id.
            make: the shape, given the size of the frame; raises `LostError`.
            occluded: there, but hidden.
        """
        counts = self.read(label, kind)
        try:
            observation, cut = self._observed(label, frame_index, make, occluded)
            known = self._objects.setdefault((id, label), _Object(label, kind))
            if observation.frame_index in known.seen:
                raise LostError(SECOND_ROW)
        except LostError as lost:
            self._lose(counts, str(lost), place)
            return
        known.seen[observation.frame_index] = observation
        counts.keep(clipped=cut)

    def span(self, label: str, start_s: float | None, end_s: float | None, place: str) -> None:
        """One event, in seconds; None for a time that is none."""
        counts = self.read(label, "span")
        reason = self._span_fault(label, start_s, end_s)
        if reason or self._video is None or start_s is None or end_s is None:
            self._lose(counts, reason, place)
            return
        last_s = self._video.info.duration_s
        counts.keep(clipped=end_s > last_s)
        self._spans.append(Span(label, start_s, min(end_s, last_s)))

    def merged(self, label: str, place: str) -> None:
        """A row that only continues an event of the row before."""
        self.read(label, "span").skip(CONTINUES, place)

    def frame_time(self, frame_index: int) -> float | None:
        """Seconds at which a frame is shown; None when the video has no such frame."""
        starts = self._video.info.starts_s if self._video else ()
        return starts[frame_index] if 0 <= frame_index < len(starts) else None

    def frame_end(self, frame_index: int) -> float | None:
        """Seconds at which a frame gives way to the next."""
        if self._video is None or self.frame_time(frame_index) is None:
            return None
        after = self.frame_time(frame_index + 1)
        return self._video.info.duration_s if after is None else after

    def drop(self, label: str, kind: str, place: str, reason: str) -> None:
        """A row that cannot be kept."""
        self._lose(self.read(label, kind), reason, place)

    def skip(self, label: str, kind: str, place: str, reason: str, *, absent: bool = False) -> None:
        """A row that means nothing is there (absent), or that stands for no single object."""
        self.read(label, kind).skip(reason, place)
        if not absent:
            self._incomplete.add(label)

    def corrected(self, label: str, kind: str, reason: str, place: str) -> None:
        """A row is kept, but not as it was drawn."""
        self._tally.of(label, kind).correct(reason, place)

    def read(self, label: str, kind: str) -> ClassTally:
        """The account of a label and kind, with one more row read."""
        counts = self._tally.of(label, kind)
        counts.read()
        return counts

    @property
    def spans(self) -> list[Span]:
        """Events so far."""
        return self._spans

    def sample(
        self, exhaustive: Iterable[str] = (), labeled_frames: Iterable[int] | None = None
    ) -> Sample | None:
        """The sample; None, and counted, when there is no video or nothing is known about it.

        Args:
            exhaustive: labels of which the format promises every object.
            labeled_frames: the only frames that were labeled, when not all were.
        """
        if self._video is None:
            return None
        taken: dict[str, int] = {}
        tracks = [
            Track(unique(id, taken), known.label, self._moments(known, labeled_frames))
            for (id, _), known in self._objects.items()
            if known.seen
        ]
        complete = tuple(dict.fromkeys(x for x in exhaustive if x not in self._incomplete))
        annotations: tuple[Annotation, ...] = (*tracks, *self._spans)
        return closed_sample(self._video, annotations, self._place, self._tally, complete)

    def _moments(
        self, known: _Object, labeled_frames: Iterable[int] | None
    ) -> tuple[Observation, ...]:
        assert self._video is not None
        drawn = [known.seen[index] for index in sorted(known.seen)]
        if labeled_frames is None:
            return tuple(drawn)
        added = filled(drawn, sorted(set(labeled_frames)), self._video.info)
        for _ in added:
            self._tally.of(known.label, known.kind).interpolate()
        return tuple(sorted((*drawn, *added), key=lambda o: o.frame_index))

    def _observed(
        self, label: str, frame_index: int | None, make: MakeShape, occluded: bool
    ) -> tuple[Observation, bool]:
        if self._video is None:
            raise LostError(MISSING_VIDEO)
        if not label:
            raise LostError(NO_LABEL)
        if frame_index is None:
            raise LostError(NO_FRAME)
        info = self._video.info
        if not 0 <= frame_index < len(info.starts_s):
            raise LostError(OUTSIDE_VIDEO)
        drawn = make(info.size_wh)
        shape, cut = fit(drawn, info.size_wh)
        if shape is None:
            raise LostError(OUTSIDE_FRAME if has_area(drawn) else NO_AREA)
        return Observation(info.starts_s[frame_index], frame_index, shape, occluded), cut

    def _span_fault(self, label: str, start_s: float | None, end_s: float | None) -> str:
        if self._video is None:
            return MISSING_VIDEO
        if not label:
            return NO_LABEL
        if start_s is None or end_s is None or start_s < 0:
            return NOT_A_NUMBER if start_s is None or end_s is None else OUTSIDE_TIME
        if end_s < start_s:
            return ENDS_FIRST
        return OUTSIDE_TIME if start_s >= self._video.info.duration_s else ""

    def _lose(self, counts: ClassTally, reason: str, place: str) -> None:
        counts.drop(reason, place)
        self._incomplete.add(counts.label)


def closed_sample(
    video: OpenVideo,
    annotations: tuple[Annotation, ...],
    place: str,
    tally: Tally,
    exhaustive: tuple[str, ...] = (),
) -> Sample | None:
    """The sample of a video, counted as kept; None, and counted, when nothing is known about it."""
    counts = tally.of("", "video")
    if not annotations and not exhaustive:
        counts.skip(NOTHING_KEPT, place)
        return None
    counts.keep()
    path, info = video.path, video.info
    media = Media("video", (path,), info.size_wh, info.duration_s)
    return Sample(_name_of(path), media, annotations, exhaustive)


def _name_of(path: Path) -> str:
    """Of a file without its ending; of a folder of pictures that of the sequence."""
    if not path.is_dir():
        return path.stem
    return path.parent.name if path.name == "img1" else path.name
