"""`Sample`, the neutral label record: one media item and all its annotations.

A `Sample` keeps what the annotation tool stored, in **pixels** (origin top left, x right, y down,
of the upright, undistorted original frame) and **seconds** (presentation time from the first
frame). Labels stay structured until frames are sampled, because a track's text depends on which
frames the model sees. This module knows nothing of Molmo's text format, tokens or torch.

Limitations: does not read files (`formats`) or choose points from shapes for a task
(`molmo_tune.templates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MediaKind = Literal["image", "video", "text"]


@dataclass(frozen=True, slots=True)
class Media:
    """Annotated images, video or text.

    Args:
        kind: ``image`` (one or more paths, in order), ``video`` (one path) or ``text`` (none).
        paths: files, absolute or relative to the working directory.
        size_wh: width and height of the upright frame in pixels, if known.
        duration_s: length in seconds, videos only, if known.
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
    """Axis-aligned box ``(left, top, right, bottom)`` in pixels; may extend beyond the frame."""

    xyxy_px: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Polygon:
    """Outline of an object in pixels: one part, or several if something hides its middle.

    A rotated box is a polygon with four corners.

    Args:
        parts_px: corners of each part in order, at least three; the last joins the first.
    """

    parts_px: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Mask:
    """Pixels of an object, run-length encoded (`geometry.masks` unpacks them).

    Args:
        counts: COCO's compressed run lengths, column by column.
        size_hw: height and width in pixels of the image that the runs cover.
    """

    counts: str
    size_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Keypoint:
    """Named place on an object; not ``visible`` means known but hidden."""

    name: str
    xy_px: tuple[float, float]
    visible: bool = True


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Named places on one object, and the object's extent if annotated."""

    points: tuple[Keypoint, ...]
    extent: Box | Polygon | Mask | None = None


Shape = Point | Box | Polygon | Mask | Keypoints


@dataclass(frozen=True, slots=True)
class Observation:
    """One object at one moment of a video.

    Args:
        time_s: presentation time of the labeled frame.
        frame_index: 0-based index of that frame in presentation order, -1 when unknown.
        shape: its shape in pixels.
        occluded: present but hidden (kept in the track, never a point to predict).
        interpolated: computed between key frames, not annotated.
    """

    time_s: float
    frame_index: int
    shape: Shape
    occluded: bool = False
    interpolated: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """One object through a video; without an observation it is *absent*."""

    id: str
    label: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in one image (``image_index`` counts from 0 within the sample)."""

    id: str
    label: str
    shape: Shape
    image_index: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Event in a video, from one time to a later or equal one."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Question with its answer, or a caption.

    Args:
        question: empty for a caption; the template supplies its question.
        answer: free text; with options, the text or letter of the correct one.
        style: the model's tag for the kind of question (`molmo_tune.templates.chat`).
        options: choices of a multiple-choice question, in the order of their letters.
    """

    question: str
    answer: str
    style: str = "user_qa"
    options: tuple[str, ...] = ()


Annotation = Track | Instance | Span | Dialogue


@dataclass(frozen=True, slots=True)
class Sample:
    """One media item and all its annotations.

    Args:
        id: unique within a dataset; reports use it.
        media: the annotated images, video or text.
        annotations: all annotations, in file order.
        exhaustive_labels: labels whose visible objects were *all* annotated. Only these become
            counts, or "none" answers when absent.
    """

    id: str
    media: Media
    annotations: tuple[Annotation, ...]
    exhaustive_labels: tuple[str, ...] = ()

    def labels(self, *kinds: type[Track] | type[Instance] | type[Span]) -> tuple[str, ...]:
        """Return the distinct labels of these kinds (default: all) in order of appearance."""
        wanted = kinds or (Track, Instance, Span)
        named = (
            a.label
            for a in self.annotations
            if not isinstance(a, Dialogue) and isinstance(a, wanted)
        )
        return tuple(dict.fromkeys(named))
