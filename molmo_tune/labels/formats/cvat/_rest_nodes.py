"""Shapes of CVAT's REST API as the elements of its XML, so that one module reads both.

    {"type": "rectangle", "points": [3, 4, 10, 5], "rotation": 45.9, "occluded": true}
    <box xtl="3" ytl="4" xbr="10" ybr="5" rotation="45.9" occluded="1"/>

Nothing is validated here: an invalid number becomes a missing or invalid attribute, which
`formats.cvat._shapes` refuses with its reason. A skeleton's track consists of one track per point;
`key_frames` combines them, frame by frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from molmo_tune.labels.files.xml import Node
from molmo_tune.labels.formats.cvat._shapes import kind_of_node
from molmo_tune.labels.image_objects import DroppedRowError, floats

Entry = Mapping[str, Any]

_TAGS = {"rectangle": "box"}
_SIDES = ("xtl", "ytl", "xbr", "ybr")


def node_of(entry: Entry, label_of: Callable[[Entry], str], frame: int | None) -> Node:
    """Return the element of a shape, or of a tag (an entry without a type)."""
    kind = str(entry.get("type", "tag"))
    node = Node(_TAGS.get(kind, kind), {"label": label_of(entry)}, 0)
    node.attributes |= {
        "frame": "" if frame is None else str(frame),
        "outside": _flag(entry, "outside"),
        "occluded": _flag(entry, "occluded"),
        "rotation": str(entry.get("rotation") or 0),
    }
    node.attributes |= _coordinates(kind, _numbers(entry))
    if kind == "skeleton":
        node.children = [
            node_of({"type": "points", **element}, label_of, frame)
            for element in elements_of(entry)
        ]
    if entry.get("attributes"):
        node.children.append(Node("attribute", {}, 0))
    return node


def kind_of(entry: Entry) -> str:
    """Return a shape's name in the report."""
    return kind_of_node(node_of(entry, lambda _: "", None))


def elements_of(entry: Entry) -> list[Entry]:
    """Return the points of a skeleton."""
    listed = entry.get("elements")
    return [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []


def key_frames(track: Entry) -> list[Entry]:
    """Return the shapes of a track; for a skeleton, one per frame with a key frame of a point."""
    shapes, elements = _shapes(track), elements_of(track)
    if not elements:
        return shapes
    frames = {s["frame"] for e in (track, *elements) for s in _shapes(e) if _has_frame(s)}
    keyed = [(e, sorted(filter(_has_frame, _shapes(e)), key=_frame_of)) for e in elements]
    found = [
        {"type": "skeleton", "frame": frame, "elements": [_point_at(*e, frame) for e in keyed]}
        for frame in sorted(frames)
    ]
    outside = {s["frame"] for s in shapes if _has_frame(s) and s.get("outside") is True}
    for entry in found:
        if entry["frame"] in outside:
            entry["elements"] = [{**e, "outside": True} for e in entry["elements"]]
    return [*found, *(s for s in shapes if not _has_frame(s))]


def _point_at(track: Entry, shapes: list[Entry], frame: int) -> dict[str, Any]:
    """Return a point of a skeleton in a frame: its key frame, or interpolated between two.

    Args:
        track: track of the point.
        shapes: its key frames, in order.
        frame: frame number in the task.
    """
    label = {key: track[key] for key in ("label_id", "label") if key in track}
    after = bisect_right(shapes, frame, key=_frame_of)
    if not after:
        return {**label, "outside": True}
    first, second = shapes[after - 1], shapes[after] if after < len(shapes) else None
    here = {"occluded": False, "outside": False, **first, **label}
    if second is not None and first["frame"] < frame and not second.get("outside"):
        fraction = (frame - first["frame"]) / (second["frame"] - first["frame"])
        here["points"] = _between(first, second, fraction)
    return here


def _frame_of(shape: Entry) -> int:
    frame: int = shape["frame"]
    return frame


def _between(first: Entry, second: Entry, fraction: float) -> object:
    try:
        ends = floats(first.get("points"), 2), floats(second.get("points"), 2)
    except DroppedRowError:
        return None
    return [a + (b - a) * fraction for a, b in zip(*ends, strict=True)]


def _shapes(track: Entry) -> list[Entry]:
    listed = track.get("shapes")
    return [s for s in listed if isinstance(s, dict)] if isinstance(listed, list) else []


def _has_frame(shape: Entry) -> bool:
    return type(shape.get("frame")) is int


def _flag(entry: Entry, name: str) -> str:
    return "1" if entry.get(name) is True else "0"


def _numbers(entry: Entry) -> list[float]:
    try:
        return floats(entry.get("points"))
    except DroppedRowError:
        return []


def _coordinates(kind: str, values: list[float]) -> dict[str, str]:
    words = [repr(value) for value in values]
    if kind == "rectangle":
        return dict(zip(_SIDES, words, strict=True)) if len(words) == 4 else {}
    if kind == "ellipse":
        return _ellipse(values)
    if kind == "mask":
        return _mask(values)
    pairs = zip(words[::2], words[1::2], strict=False)
    is_complete = words and len(words) % 2 == 0
    return {"points": ";".join(f"{x},{y}" for x, y in pairs) if is_complete else "none"}


def _ellipse(values: list[float]) -> dict[str, str]:
    if len(values) != 4:
        return {}
    x, y, right, top = values
    return {"cx": repr(x), "cy": repr(y), "rx": repr(right - x), "ry": repr(y - top)}


def _mask(values: list[float]) -> dict[str, str]:
    if len(values) < 5 or any(value != int(value) for value in values):
        return {}
    *runs, left, top, right, bottom = map(int, values)
    size = {"width": str(right - left + 1), "height": str(bottom - top + 1)}
    return {"rle": ",".join(map(str, runs)), "left": str(left), "top": str(top), **size}
