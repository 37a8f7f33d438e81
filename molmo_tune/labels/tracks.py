"""From the rows of a track to observations: gaps filled, cut at the frame, timed by the video.

Tools write tracks as rows, each for one frame. What all formats share is here:

- the time of a row is the presentation time of its frame, taken from the video, not ``n / fps``;
- a gap between two rows is filled on a straight line, or, between shapes that no few numbers say,
  by the nearer of the two over a quarter of a second at most; a row that says "not there" or that
  was lost ends the line, so that nothing is invented across it;
- boxes are cut at the edge of the frame *after* filling, so that the line is that of the drawn
  boxes; what lies wholly outside is dropped and counted.

What it does not do: read rows (one module per format) or know where the model looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from molmo_tune.labels.geometry.interpolation import MAX_HOLD_S
from molmo_tune.labels.geometry.shapes import bounds, fit, has_area, moved, turned_box
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
        values: numbers that move on a straight line between rows; None when the object is not
            there or the row was lost, in either case already counted.
        place: ``file:line`` or an id, for the report.
        kind: ``box`` or ``point``; lines run between rows of one kind.
        occluded: there, but hidden; holds until the next row.
        ends: nothing is there after this row, until the next one.
        computed: written by the tool between key frames, not drawn.
        shape: as it was drawn (polygon, mask, …), where no few numbers say it; no values then.
        keyed: the file has key frames only; the tool moves a shape from one to the next, however
            far.
        holds_to: the last frame to which it stays as it is; -1 where other rows say.
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
        """Whether the object is there, and where is known."""
        return bool(self.values) or self.shape is not None


def observations(
    rows: Sequence[Row],
    video: VideoInfo,
    shape_of: ShapeOf,
    tally_of: Callable[[str], ClassTally],
    hold_until: int = -1,
) -> tuple[Observation, ...]:
    """Observations of one object in frame order.

    Args:
        rows: in any order.
        video: the video the rows lie on; times, number of frames and size come from it.
        shape_of: the shape in pixels that a row's values mean.
        tally_of: the account for a kind of row.
        hold_until: the last row holds to this frame (0-based, inclusive) if it does not end.
    """
    ordered = _one_per_frame(rows, tally_of)
    found = [_drawn(row, video, shape_of, tally_of(row.kind)) for row in ordered if row.shows]
    for row, index, drawn in _between(ordered, video, shape_of, hold_until):
        shape, _ = fit(drawn, video.size_wh)
        if shape is not None:
            tally_of(row.kind).interpolate()
            found.append(_observed(index, shape, video, row.occluded, True))
    return tuple(sorted((o for o in found if o is not None), key=lambda o: o.frame_index))


def upright_box(
    corner_xy: tuple[float, float], size_wh: tuple[float, float], degrees: float, at: str
) -> Box:
    """The upright box around a rotated one, in pixels.

    Args:
        corner_xy: top left corner before the rotation.
        size_wh: width and height; negative ones reach to the left and up.
        degrees: clockwise on the screen.
        at: ``corner`` or ``center``, the point it turns about.
    """
    (corners,) = turned_box(corner_xy, size_wh, degrees, at).parts_px
    return bounds(corners)


def numbers(texts: Sequence[object]) -> Values | None:
    """The finite numbers that these spell, None if one does not."""
    try:
        found = tuple(float(text) for text in texts if isinstance(text, str | int | float))
    except (ValueError, OverflowError):
        return None
    return found if len(found) == len(texts) and all(map(math.isfinite, found)) else None


def unique(name: str, taken: dict[str, int]) -> str:
    """The name, or the first of ``name-2``, ``name-3``, … that is free; it is taken from now on.

    Args:
        name: that is wanted.
        taken: names, each with the last number that was put behind it.
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
    """In frame order; where a frame has several rows the first that shows something is taken."""
    chosen: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: (row.frame_index, not row.shows)):
        if row.frame_index not in chosen:
            chosen[row.frame_index] = row
        elif row.shows:
            tally_of(row.kind).drop(SECOND_ROW, row.place)
    return list(chosen.values())


def _drawn(row: Row, video: VideoInfo, shape_of: ShapeOf, tally: ClassTally) -> Observation | None:
    """The observation of a row as it stands in the file; what cannot be kept is counted."""
    if not 0 <= row.frame_index < video.num_frames:
        tally.drop(OUTSIDE_VIDEO, row.place)
        return None
    drawn = row.shape or shape_of(row.values or ())
    shape, cut = fit(drawn, video.size_wh)
    if shape is None:
        tally.drop(OUTSIDE_FRAME if has_area(drawn) else NO_AREA, row.place)
        return None
    tally.keep(clipped=cut)
    return _observed(row.frame_index, shape, video, row.occluded, row.computed)


def _between(
    rows: Sequence[Row], video: VideoInfo, shape_of: ShapeOf, hold_until: int
) -> Iterator[tuple[Row, int, Shape]]:
    """What to add: the row before it, the frame, and the shape there."""
    for row, after in pairwise(rows):
        if not (row.shows and after.shows) or row.kind != after.kind or row.ends:
            continue
        if row.shape is not None and not row.keyed and not _is_near(row, after, video):
            continue
        span = after.frame_index - row.frame_index
        for index in range(max(row.frame_index + 1, 0), min(after.frame_index, video.num_frames)):
            yield row, index, _moved(row, after, (index - row.frame_index) / span, shape_of)
    last = rows[-1] if rows else None
    if last is not None and last.values and not last.ends:
        for index in range(max(last.frame_index + 1, 0), min(hold_until + 1, video.num_frames)):
            yield last, index, shape_of(last.values)
    for row in rows:
        for index in range(max(row.frame_index + 1, 0), min(row.holds_to + 1, video.num_frames)):
            yield row, index, row.shape or shape_of(row.values or ())


def _moved(row: Row, after: Row, share: float, shape_of: ShapeOf) -> Shape:
    if row.shape is not None and after.shape is not None:
        if row.keyed:
            return moved(row.shape, after.shape, share)
        return row.shape if share <= 0.5 else after.shape
    pairs = zip(row.values or (), after.values or (), strict=True)
    return shape_of(tuple(a + (b - a) * share for a, b in pairs))


def _is_near(row: Row, after: Row, video: VideoInfo) -> bool:
    """Whether little can have moved between the two."""
    if not 0 <= row.frame_index < after.frame_index < video.num_frames:
        return False
    return video.starts_s[after.frame_index] - video.starts_s[row.frame_index] <= MAX_HOLD_S


def _observed(
    index: int, shape: Shape, video: VideoInfo, occluded: bool, interpolated: bool
) -> Observation:
    return Observation(video.starts_s[index], index, shape, occluded, interpolated)
