"""Molmo 2's point and track text: the only place that formats and parses it.

An answer is a tag such as ``<points coords="0.5 1 100 200;1.0 2 300 400">goal</points>``: groups
(one per image or video frame) of ``prefix id x y id x y …``, where x and y are thousandths of the
width and height, and the prefix is an image number or a time in seconds. The released models write
exactly one format ("html-v2"), so training text matches it byte for byte. The parser follows the
rules of Ai2's own parser, which keeps scores comparable.

All functions are pure. Coordinates are pixels of the given ``size_wh`` (origin top left, x right,
y down); for labels on a scale of 0 to 100, pass ``size_wh=(100, 100)``.

Three deviations from the reference. ``ai2_compat=True`` turns off the first two:

* The formatter clamps both axes to the frame. The reference leaves a y outside the frame unchanged;
  its own parser drops such a point, and for a negative number the whole tag.
* The parser skips a group whose time or image number is invalid; the reference raises.
* With ``tolerant=True`` (evaluation uses it) the parser also reads a tag that the token limit cut
  off. Ai2's video evaluation reads nothing in such an answer; its image evaluation falls back to
  older patterns and reads some of it. On truncated answers, scores therefore differ.

Limitations: does not choose a track's frames (`molmo_tune.grounding.tracks`), read the number of a
counting answer (`molmo_tune.grounding.counting`), phrase questions, choose points of boxes or
masks, read Ai2's older formats, or score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from molmo_tune.errors import UserError
from molmo_tune.grounding.times import Time, format_time, time_order
from molmo_tune.grounding.tracks import TrackFrame

XY = tuple[float, float]
SizeWH = tuple[float, float]
Mode = Literal[
    "point",
    "pointing",
    "point_count",
    "point_then_count",
    "count_point",
    "count_then_point",
    "count",
    "counting",
]

NO_POINTS = "There are none."
NO_TRACKS = "No tracks available."


# --------------------------------------------------------------------------------- formatting


def _relative(xy_px: Sequence[float], size_wh: SizeWH) -> XY:
    return float(xy_px[0]) / size_wh[0], float(xy_px[1]) / size_wh[1]


def _inside(value: float) -> bool:
    return 0.0 <= value <= 1.0


def _thousandths(
    xy_px: Sequence[float], size_wh: SizeWH, ai2_compat: bool = False
) -> tuple[int, int]:
    x, y = _relative(xy_px, size_wh)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UserError("point", f"{tuple(xy_px)}", "two finite pixel coordinates")
    if not ai2_compat or (not _inside(x) and _inside(y)):
        x, y = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
    return round(1000 * x), round(1000 * y)


def _check_size(size_wh: SizeWH) -> SizeWH:
    if not all(math.isfinite(side) and side > 0 for side in size_wh):
        raise UserError("size_wh", f"{tuple(size_wh)}", "a positive width and height in pixels")
    return size_wh


def count_out_of_frame(points: Sequence[Sequence[float]], size_wh: SizeWH) -> int:
    """Return how many points (pixels of ``size_wh``) formatting clamps to the edge of the frame."""
    relative = (_relative(xy, _check_size(size_wh)) for xy in points)
    return sum(not (_inside(x) and _inside(y)) for x, y in relative)


def _tag(name: str, groups: str, label: str, alt: str | None) -> str:
    attribute = "" if alt is None else f' alt="{alt}"'
    return f'<{name}{attribute} coords="{groups}">{label}</{name}>'


def _group(prefix: str, entries: Sequence[tuple[int, tuple[int, int]]]) -> str:
    return f"{prefix} " + " ".join(f"{number} {x:03d} {y:03d}" for number, (x, y) in entries)


def _count_sentence(tag: str, count: int, mode: Mode | None) -> str:
    if mode not in (None, *get_args(Mode)):
        raise UserError("mode", repr(mode), f"one of {', '.join(get_args(Mode))}")
    if count == 0:
        return NO_POINTS
    if mode in ("point_count", "point_then_count"):
        return f"Counting the {tag} shows a total of {count}."
    if mode in ("count_point", "count_then_point"):
        return f"There are {count} {tag}."
    return str(count) if mode in ("count", "counting") else tag


def _format_points(
    groups: Sequence[tuple[str, SizeWH, Sequence[Sequence[float]]]],
    label: str,
    mode: Mode | None,
    alt: str | None,
    ai2_compat: bool,
    separator: str,
) -> str:
    count = 0
    parts: list[str] = []
    for prefix, size_wh, points in groups:
        size = _check_size(size_wh)
        scaled = sorted(_thousandths(xy, size, ai2_compat) for xy in points)
        parts.append(_group(prefix, list(enumerate(scaled, start=count + 1))))
        count += len(scaled)
    return _count_sentence(_tag("points", separator.join(parts), label, alt), count, mode)


def format_image_points(
    points: Sequence[Sequence[float]],
    *,
    size_wh: SizeWH,
    label: str,
    mode: Mode | None = "point",
    alt: str | None = None,
    ai2_compat: bool = False,
) -> str:
    """Return the answer for points on one image.

    Args:
        points: (x, y) in pixels of ``size_wh``, in any order; duplicates are kept.
        size_wh: width and height of the image that the coordinates refer to.
        label: written between the tags unchanged; nothing is escaped.
        mode: ``point``/``pointing``/None, ``point_count``/``point_then_count``,
            ``count_point``/``count_then_point`` or ``count``/``counting``.
        alt: written as an ``alt`` attribute unless None, even if empty.
        ai2_compat: clamp as the reference does, which allows a y outside the frame.

    Returns:
        The answer; in every mode `NO_POINTS` if there are no points.

    Raises:
        UserError: a coordinate is not finite, the size is not positive or the mode is unknown.
    """
    return _format_points([("1", size_wh, points)], label, mode, alt, ai2_compat, ";")


def format_multi_image_points(
    images: Sequence[tuple[int, SizeWH, Sequence[Sequence[float]]]],
    *,
    label: str,
    mode: Mode | None = "point",
    alt: str | None = None,
    ai2_compat: bool = False,
    separator: str = ";",
) -> str:
    """Return the answer for points on several images.

    Args:
        images: ``(image number from 1, size_wh, points in pixels of that image)``, written in the
            given order. Omit images without points: they would leave an empty group.
        separator: separator of groups. Released models write ``;``; the older html-v1 has a TAB.

    For the other arguments, the result and the errors, see `format_image_points`.
    """
    groups = [(str(number), size_wh, points) for number, size_wh, points in images]
    return _format_points(groups, label, mode, alt, ai2_compat, separator)


def format_video_points(
    frames: Sequence[tuple[Time, Sequence[Sequence[float]]]],
    *,
    size_wh: SizeWH,
    label: str,
    mode: Mode | None = "point",
    alt: str | None = None,
    ai2_compat: bool = False,
    separator: str = ";",
) -> str:
    """Return the answer for points in a video.

    Args:
        frames: ``(time in seconds, points in pixels of size_wh)``, written in the given order: not
            sorted, and two entries with the same time stay two groups.

    For the other arguments, the result and the errors, see `format_multi_image_points` and
    `format_time`.
    """
    groups = [(format_time(time, ai2_compat=ai2_compat), size_wh, xy) for time, xy in frames]
    return _format_points(groups, label, mode, alt, ai2_compat, separator)


def input_points(label: str, time_s: Time, xy_px: Sequence[float], *, size_wh: SizeWH) -> str:
    """Return the starting point of single-point tracking, as questions contain it."""
    return format_video_points([(time_s, [xy_px])], size_wh=size_wh, label=label, mode=None)


def format_tracks(
    frames: Sequence[TrackFrame],
    *,
    size_wh: SizeWH,
    label: str,
    alt: str | None = None,
    ai2_compat: bool = False,
    separator: str = ";",
) -> str:
    """Return the answer for tracks.

    Frames are sorted by time, ids number the objects by first visible appearance, and hidden points
    are omitted.

    Args:
        frames: labeled frames in any order; points in pixels of ``size_wh``.
        label: written unchanged, as ``alt`` is; for the other arguments see `format_video_points`.

    Returns:
        The tag; `NO_TRACKS` if there are no frames; an empty string if there are frames but no
        visible points (as in the reference; do not train on such an example).

    Raises:
        UserError: as `format_image_points` and `format_time`.
    """
    if not frames:
        return NO_TRACKS
    size = _check_size(size_wh)
    numbers: dict[Hashable, int] = {}
    groups: list[str] = []
    for frame in sorted(frames, key=lambda frame: time_order(frame.time_s)):
        visible = [
            (p.id, _thousandths(p.xy_px, size, ai2_compat)) for p in frame.points if not p.occluded
        ]
        for object_id, _ in sorted(visible, key=lambda entry: entry[1]):
            numbers.setdefault(object_id, len(numbers) + 1)
        entries = sorted((numbers[object_id], xy) for object_id, xy in visible)
        if entries:
            groups.append(_group(format_time(frame.time_s, ai2_compat=ai2_compat), entries))
    return _tag("tracks", separator.join(groups), label, alt) if groups else ""


# ------------------------------------------------------------------------------------ parsing

# Possessive quantifiers (`++`) and the optional coordinates in _POINT keep every search linear.
# The obvious patterns would take hours for a megabyte of `<points<points…` or of digits.
_COORDS = re.compile(r' coords="([0-9\t:;, .]++)"/?>')
_TRUNCATED_COORDS = re.compile(r' coords="([0-9\t:;, .]++)(?P<closed>"/?)?\Z')
_LABELED = re.compile(r"<(?:points|tracks) [^<>]*+>([^<>]*+)</")
_OPENING = re.compile(r"<(?:points|tracks)")
_GROUP = re.compile(r"(?:^|[\t:,;])([0-9.]++) ([0-9. ]++)")
_POINT = re.compile(r"([0-9]++)(?: ([0-9]{3,4}) ([0-9]{3,4}))?")
# Every spelling of a coordinate inside the frame; 1001 to 9999 are outside and dropped.
_FRACTION = {f"{n:0{width}d}": n / 1000 for n in range(1001) for width in (3, 4)}


class ParsedPoint(NamedTuple):
    """A point of an answer: time in seconds or image number, id as written, position in pixels."""

    frame_id: float
    id: str
    xy_px: XY


@dataclass(frozen=True, slots=True)
class ParsedTrackFrame:
    """One time of a track answer: seconds, frame number at the given rate, pixels by id."""

    time_s: float
    frame_index: int
    points: dict[str, XY]


def _coordinate_lists(text: str, tolerant: bool) -> Iterator[str]:
    """Yield the contents of every well-formed attribute after an opening tag on the same line."""
    truncated = _TRUNCATED_COORDS.search(text) if tolerant else None
    start = 0
    for match in (*_COORDS.finditer(text), *([truncated] if truncated else [])):
        line_start = max(start, text.rfind("\n", start, match.start()) + 1)
        if _OPENING.search(text, line_start, match.start()):
            is_complete = match is not truncated or match["closed"]
            yield match[1] if is_complete else match[1].rstrip("0123456789.")
        start = match.end()


def _parse(
    text: str, tolerant: bool, locate: Callable[[str], tuple[float, SizeWH] | None]
) -> list[ParsedPoint]:
    """Return all points of all tags; ``locate`` maps a prefix to frame id and frame size."""
    found: list[ParsedPoint] = []
    fraction = _FRACTION.get
    new = tuple.__new__  # a NamedTuple's own constructor would take a fifth of the time
    for coordinates in _coordinate_lists(text, tolerant):
        for prefix, body in _GROUP.findall(coordinates):
            place = locate(prefix)
            if place is None:
                continue
            frame_id, (width, height) = place
            found += [
                new(ParsedPoint, (frame_id, point_id, (x * width, y * height)))
                for point_id, x_text, y_text in _POINT.findall(body)
                if (x := fraction(x_text)) is not None and (y := fraction(y_text)) is not None
            ]
    return found


def label_of_answer(text: str) -> str:
    """Return the label in the first tag of an answer; empty without a complete tag."""
    found = _LABELED.search(text)
    return found[1].strip() if found else ""


def parse_points(
    text: str, *, size_wh: SizeWH, tolerant: bool = False, ai2_compat: bool = False
) -> list[ParsedPoint]:
    """Return all points (or track points) of an answer about one image or one video.

    Args:
        text: any text; everything outside of well-formed tags is ignored.
        size_wh: size in pixels of the frame that the result refers to.
        tolerant: also read a last tag that the token limit cut off, without its last number, which
            can be incomplete. Ai2's tag parser reads nothing there.
        ai2_compat: raise ValueError on a time such as ``1.5.2`` instead of skipping its group.

    Returns:
        Points in text order, without those outside the frame; ids as written, possibly repeated.
    """

    def locate(prefix: str) -> tuple[float, SizeWH] | None:
        try:
            time_s = float(prefix)
        except ValueError:
            if ai2_compat:
                raise
            return None
        return (time_s, size_wh) if ai2_compat or math.isfinite(time_s) else None

    return _parse(text, tolerant, locate)


def parse_multi_image_points(
    text: str,
    *,
    sizes_wh: Sequence[SizeWH],
    tolerant: bool = False,
    ai2_compat: bool = False,
) -> list[ParsedPoint]:
    """Return the points of an answer about several images; ``frame_id`` is the number from 1.

    Args:
        sizes_wh: size in pixels of each image, in order.
        ai2_compat: raise ValueError on an image number such as ``1.0`` and IndexError on one that
            is too large, and let 0 mean the last image, instead of skipping these groups.

    For the other arguments and the result, see `parse_points`.
    """

    def locate(prefix: str) -> tuple[float, SizeWH] | None:
        if not ai2_compat and not (prefix.isdigit() and len(prefix) < 9):
            return None
        number = int(prefix)
        if not ai2_compat and not 1 <= number <= len(sizes_wh):
            return None
        return float(number), sizes_wh[number - 1]

    return _parse(text, tolerant, locate)


def parse_tracks(
    text: str,
    *,
    size_wh: SizeWH,
    video_fps: float,
    tolerant: bool = False,
    ai2_compat: bool = False,
) -> list[ParsedTrackFrame]:
    """Return the frames of a track answer, sorted by time.

    The first entry of an id at a time wins.

    Args:
        video_fps: rate of the frame numbers: ``frame_index = round(time_s · video_fps)``.

    For the other arguments, see `parse_points`.
    """
    by_time: dict[float, dict[str, XY]] = {}
    for point in parse_points(text, size_wh=size_wh, tolerant=tolerant, ai2_compat=ai2_compat):
        if math.isfinite(point.frame_id * video_fps):
            by_time.setdefault(point.frame_id, {}).setdefault(point.id, point.xy_px)
    return [
        ParsedTrackFrame(time_s, round(time_s * video_fps), by_time[time_s])
        for time_s in sorted(by_time)
    ]
