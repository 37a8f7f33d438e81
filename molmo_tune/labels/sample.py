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


Shape = Point | Box


@dataclass(frozen=True, slots=True)
class Observation:
    """One object at one moment.

    Args:
        time_s: presentation time of the labelled frame.
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
class Dialogue:
    """A question and its answer, both plain text: QA, captions, absence statements."""

    question: str
    answer: str
    style: str = "user_qa"


Annotation = Track | Instance | Dialogue


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

    def labels(self) -> tuple[str, ...]:
        """Distinct labels of tracks and instances, in first-seen order."""
        named = (a.label for a in self.annotations if not isinstance(a, Dialogue))
        return tuple(dict.fromkeys(named))
