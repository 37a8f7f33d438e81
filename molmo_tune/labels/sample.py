"""The neutral label record: one medium with everything that was said about it.

A `Sample` keeps what the annotation tool knew, in **pixels** (origin top left, x right, y down, of
the upright, undistorted original frame) and **seconds** (presentation time from the first frame of
the medium). Labels stay structured until frames are sampled, because the text of a track depends on
which frames the model sees. Nothing here knows Molmo's text format, tokens or torch.

What it does not do: read files (one module per format beside this one) or choose points from shapes
for a task (`molmo_tune.templates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MediaKind = Literal["image", "video", "text"]


@dataclass(frozen=True, slots=True)
class Media:
    """What the annotations lie on.

    Args:
        kind: ``image`` (one or several paths, in order), ``video`` (one path) or ``text`` (none).
        paths: files, absolute or relative to the working directory.
        size_wh: width and height in pixels of the upright frame, when the label file states it.
        duration_s: length in seconds, videos only, when known.
    """

    kind: MediaKind
    paths: tuple[Path, ...] = ()
    size_wh: tuple[int, int] | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One position in pixels."""

    xy_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned box ``(left, top, right, bottom)`` in pixels; may leave the frame."""

    xyxy_px: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Polygon:
    """The outline of an object in pixels: one part or, where something hides its middle, several.

    A box that stands askew is a polygon of four corners.

    Args:
        parts_px: for each part its corners in order, at least three; the last joins the first.
    """

    parts_px: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Mask:
    """The pixels of an object, packed; `geometry.masks` unpacks them when needed.

    Args:
        counts: COCO's compressed run lengths, column by column.
        size_hw: height and width of the image that the runs cover.
    """

    counts: str
    size_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named place on an object; ``visible`` is false when it is known but hidden."""

    name: str
    xy_px: tuple[float, float]
    visible: bool = True


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Named places on one object, and its extent where that was drawn as well."""

    points: tuple[Keypoint, ...]
    extent: Box | Polygon | Mask | None = None


Shape = Point | Box | Polygon | Mask | Keypoints


@dataclass(frozen=True, slots=True)
class Observation:
    """One object at one moment.

    Args:
        time_s: presentation time of the labeled frame.
        frame_index: 0-based index of that frame in presentation order, -1 when unknown.
        shape: where it is.
        occluded: there, but hidden (kept as a track, never asked as a point).
        interpolated: not drawn by a person but computed between key frames.
    """

    time_s: float
    frame_index: int
    shape: Shape
    occluded: bool = False
    interpolated: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """One object through a video; moments without an observation mean *not there*."""

    id: str
    label: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """One object on one image (``image_index`` counts from 0 within the sample)."""

    id: str
    label: str
    shape: Shape
    image_index: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Something that happens in a video from one moment to a later one (or at one moment)."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What the labels say in words: a question with its answer, or a caption.

    Args:
        question: empty for a caption, whose question is the template's.
        answer: free text; with options the text or the letter of the right one.
        style: kind of question, as the model was trained (`molmo_tune.templates.chat`).
        options: the choices of a multiple-choice question, in the order of their letters.
    """

    question: str
    answer: str
    style: str = "user_qa"
    options: tuple[str, ...] = ()


Annotation = Track | Instance | Span | Dialogue


@dataclass(frozen=True, slots=True)
class Sample:
    """One medium with all its annotations.

    Args:
        id: unique within a data set; it appears in every report that concerns the sample.
        media: what the annotations lie on.
        annotations: everything said about the medium, in file order.
        exhaustive_labels: labels of which *every* visible object was annotated. Only these may
            become counts, or "none" answers when absent.
    """

    id: str
    media: Media
    annotations: tuple[Annotation, ...]
    exhaustive_labels: tuple[str, ...] = ()

    def labels(self, *kinds: type[Track] | type[Instance] | type[Span]) -> tuple[str, ...]:
        """Distinct labels of annotations of these kinds (default: all), in first-seen order."""
        wanted = kinds or (Track, Instance, Span)
        named = (
            a.label
            for a in self.annotations
            if not isinstance(a, Dialogue) and isinstance(a, wanted)
        )
        return tuple(dict.fromkeys(named))
