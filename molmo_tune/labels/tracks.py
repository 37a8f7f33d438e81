"""From the rows of a track to observations: gaps filled, clipped to the frame, timed by the video.

Tools write tracks as rows, one per frame. All formats share these rules:

- a row's time is the presentation time of its frame, taken from the video, not ``n / fps``;
- a gap between two rows is filled by linear interpolation; shapes that do not interpolate are
  copied from the nearer row, over at most a quarter of a second. A row that says "absent" or was
  dropped ends the track segment, so nothing is invented across it;
- boxes are clipped at the edge of the frame *after* interpolation, which therefore uses the boxes
  as annotated; an object entirely outside the frame is dropped and counted.

Limitations: does not read rows (`formats`) or know which frames the model sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from molmo_tune.labels.geometry.interpolation import MAX_HOLD_S
from molmo_tune.labels.geometry.shapes import bounds, fit, has_area, interpolate, rotated_box
from molmo_tune.labels.report import ClassTally
from molmo_tune.labels.sample import Box, Observation, Shape
from molmo_tune.media.video import VideoInfo

Values = tuple[float, ...]
ShapeOf = Callable[[Values], Shape]

NOT_A_NUMBER = "coordinate missing or not a number"
NO_FRAME = "frame number missing or not an integer"
NO_LABEL = "no class label"
MISSING_VIDEO = "video missing or unreadable"
OUTSIDE_VIDEO = "frame outside the video"
OUTSIDE_FRAME = "entirely outside the frame"
NO_AREA = "zero area"
SECOND_ROW = "duplicate row for a frame"
ROTATED = "rotated box replaced by its axis-aligned bounding box"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a track.

    Args:
        frame_index: 0-based, in presentation order.
        values: numbers to interpolate linearly between rows; None if the object is absent or the
            row was dropped, both already counted.
        place: ``file:line`` or an id, for the report.
        kind: ``box`` or ``point``; only rows of the same kind are interpolated.
        occluded: present but hidden; holds until the next row.
        ends: the object is absent after this row, until the next one.
        computed: written by the tool between key frames, not annotated.
        shape: the shape as annotated (polygon, mask, …), instead of values.
        keyed: the file has key frames only, and the tool moves a shape from one to the next over
            any distance.
        holds_to: last frame index up to which the shape stays unchanged; -1 if other rows decide.
    """

    frame_index: int
    values: Values | None
    place: str
    kind: str = "box"
    occluded: bool = False
    ends: bool = False
    computed: bool = False
    shape: Shape | None = None
    keyed: bool = False
    holds_to: int = -1

    @property
    def shows(self) -> bool:
        """Whether the object is present at a known place."""
        return bool(self.values) or self.shape is not None


def observations(
    rows: Sequence[Row],
    video: VideoInfo,
    shape_of: ShapeOf,
    tally_of: Callable[[str], ClassTally],
    hold_until: int = -1,
) -> tuple[Observation, ...]:
    """Return the observations of one object in frame order.

    Args:
        rows: rows of the object in any order.
        video: the annotated video; times, number of frames and size come from it.
        shape_of: returns the shape in pixels of a row's values.
        tally_of: returns the counter for a kind of row.
        hold_until: 0-based last frame up to which the last row holds, unless it ends.
    """
    ordered = _one_per_frame(rows, tally_of)
    found = [_annotated(row, video, shape_of, tally_of(row.kind)) for row in ordered if row.shows]
    for row, index, added in _between(ordered, video, shape_of, hold_until):
        shape, _ = fit(added, video.size_wh)
        if shape is not None:
            tally_of(row.kind).interpolate()
            found.append(_observed(index, shape, video, row.occluded, True))
    return tuple(sorted((o for o in found if o is not None), key=lambda o: o.frame_index))


def upright_box(
    corner_xy: tuple[float, float], size_wh: tuple[float, float], degrees: float, at: str
) -> Box:
    """Return the axis-aligned bounding box of a rotated box, in pixels.

    Args:
        corner_xy: top left corner before the rotation.
        size_wh: width and height; negative values extend to the left and up.
        degrees: rotation, clockwise on the screen.
        at: pivot, ``corner`` or ``center``.
    """
    (corners,) = rotated_box(corner_xy, size_wh, degrees, at).parts_px
    return bounds(corners)


def numbers(texts: Sequence[object]) -> Values | None:
    """Return the finite numbers of texts or numbers, None if one is not."""
    try:
        found = tuple(float(text) for text in texts if isinstance(text, str | int | float))
    except (ValueError, OverflowError):
        return None
    return found if len(found) == len(texts) and all(map(math.isfinite, found)) else None


def unique(name: str, taken: dict[str, int]) -> str:
    """Return the name, or the first free one of ``name-2``, ``name-3``, …, and mark it as taken.

    Args:
        name: preferred name.
        taken: taken names, each with the last number appended to it.
    """
    number = taken.setdefault(name, 0)
    if not number:
        taken[name] = 1
        return name
    while (candidate := f"{name}-{number + 1}") in taken:
        number += 1
    taken[name], taken[candidate] = number + 1, 1
    return candidate


def _one_per_frame(rows: Sequence[Row], tally_of: Callable[[str], ClassTally]) -> list[Row]:
    """Return rows in frame order; of several rows for a frame, keep the first with an object."""
    chosen: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: (row.frame_index, not row.shows)):
        if row.frame_index not in chosen:
            chosen[row.frame_index] = row
        elif row.shows:
            tally_of(row.kind).drop(SECOND_ROW, row.place)
    return list(chosen.values())


def _annotated(
    row: Row, video: VideoInfo, shape_of: ShapeOf, tally: ClassTally
) -> Observation | None:
    """Return the observation of a row of the file; count a row that cannot be kept."""
    if not 0 <= row.frame_index < video.num_frames:
        tally.drop(OUTSIDE_VIDEO, row.place)
        return None
    original = row.shape or shape_of(row.values or ())
    shape, is_clipped = fit(original, video.size_wh)
    if shape is None:
        tally.drop(OUTSIDE_FRAME if has_area(original) else NO_AREA, row.place)
        return None
    tally.keep(clipped=is_clipped)
    return _observed(row.frame_index, shape, video, row.occluded, row.computed)


def _between(
    rows: Sequence[Row], video: VideoInfo, shape_of: ShapeOf, hold_until: int
) -> Iterator[tuple[Row, int, Shape]]:
    """Yield what to add: the previous row, the frame index, and the shape."""
    for row, after in pairwise(rows):
        if not (row.shows and after.shows) or row.kind != after.kind or row.ends:
            continue
        if row.shape is not None and not row.keyed and not _is_near(row, after, video):
            continue
        span = after.frame_index - row.frame_index
        for index in range(max(row.frame_index + 1, 0), min(after.frame_index, video.num_frames)):
            yield row, index, _interpolated(row, after, (index - row.frame_index) / span, shape_of)
    last = rows[-1] if rows else None
    if last is not None and last.values and not last.ends:
        for index in range(max(last.frame_index + 1, 0), min(hold_until + 1, video.num_frames)):
            yield last, index, shape_of(last.values)
    for row in rows:
        for index in range(max(row.frame_index + 1, 0), min(row.holds_to + 1, video.num_frames)):
            yield row, index, row.shape or shape_of(row.values or ())


def _interpolated(row: Row, after: Row, fraction: float, shape_of: ShapeOf) -> Shape:
    if row.shape is not None and after.shape is not None:
        if row.keyed:
            return interpolate(row.shape, after.shape, fraction)
        return row.shape if fraction <= 0.5 else after.shape
    pairs = zip(row.values or (), after.values or (), strict=True)
    return shape_of(tuple(a + (b - a) * fraction for a, b in pairs))


def _is_near(row: Row, after: Row, video: VideoInfo) -> bool:
    """Whether two rows are so close in time that little can have moved."""
    if not 0 <= row.frame_index < after.frame_index < video.num_frames:
        return False
    return video.starts_s[after.frame_index] - video.starts_s[row.frame_index] <= MAX_HOLD_S


def _observed(
    index: int, shape: Shape, video: VideoInfo, occluded: bool, interpolated: bool
) -> Observation:
    return Observation(video.starts_s[index], index, shape, occluded, interpolated)
