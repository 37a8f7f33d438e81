"""A `Sample` as a plain JSON object, and back: `format_record` and `parse_record`.

The object is that of a line of molmo-tune's JSONL; `molmo_tune.labels.jsonl` lists its keys.
``parse_record(format_record(sample))`` is the sample again. Keys that would say nothing (no
duration, not occluded) are not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.sample import (
    Annotation,
    Box,
    Dialogue,
    Instance,
    Media,
    MediaKind,
    Observation,
    Point,
    Sample,
    Shape,
    Track,
)
from molmo_tune.labels.strict_json import Part, shown

FORMAT = "molmo-tune/1"

_KEYS = {
    "sample": ("format", "id", "media", "annotations", "exhaustive_labels"),
    "media": ("kind", "paths", "size_wh", "duration_s"),
    "track": ("kind", "id", "label", "observations"),
    "observation": ("time_s", "frame_index", "point", "box", "occluded", "interpolated"),
    "instance": ("kind", "id", "label", "point", "box", "image_index"),
    "dialogue": ("kind", "question", "answer", "style"),
}
_MEDIA_KINDS: dict[str, MediaKind] = {"image": "image", "video": "video", "text": "text"}


def format_record(sample: Sample) -> dict[str, Any]:
    """The object of a sample. Numbers are not looked at."""
    media = sample.media
    return _without_defaults(
        {
            "format": FORMAT,
            "id": sample.id,
            "media": _without_defaults(
                {
                    "kind": media.kind,
                    "paths": [str(path) for path in media.paths],
                    "size_wh": media.size_wh,
                    "duration_s": media.duration_s,
                }
            ),
            "annotations": [_record(annotation) for annotation in sample.annotations],
            "exhaustive_labels": sample.exhaustive_labels,
        }
    )


def parse_record(value: object, where: str) -> Sample:
    """The sample of an object.

    Args:
        value: parsed JSON.
        where: ``file:line`` for the messages.

    Raises:
        UserError: anything but such an object.
    """
    if isinstance(value, dict) and value.get("format") != FORMAT:
        found = f"format is {shown(value.get('format'))}"
        raise UserError(where, found, f"{FORMAT!r} on every line")
    part = Part.of(value, "sample", _KEYS["sample"], where)
    media = _media(Part.of(part.values.get("media"), "media", _KEYS["media"], where))
    annotations = tuple(_annotation(v, media, where) for v in part.items("annotations"))
    return Sample(part.text("id"), media, annotations, part.texts("exhaustive_labels"))


def _record(annotation: Annotation) -> dict[str, Any]:
    if isinstance(annotation, Dialogue):
        record = {"question": annotation.question, "answer": annotation.answer}
        return {"kind": "dialogue", **record, "style": annotation.style}
    named = {"id": annotation.id, "label": annotation.label}
    if isinstance(annotation, Track):
        rows = [_observation_record(o) for o in annotation.observations]
        return {"kind": "track", **named, "observations": rows}
    record = {"kind": "instance", **named, **_shape_record(annotation.shape)}
    return {**record, **({"image_index": i} if (i := annotation.image_index) else {})}


def _observation_record(o: Observation) -> dict[str, Any]:
    flags = {"occluded": o.occluded, "interpolated": o.interpolated}
    index = {} if o.frame_index == -1 else {"frame_index": o.frame_index}
    return {"time_s": o.time_s, **index, **_shape_record(o.shape), **_without_defaults(flags)}


def _shape_record(shape: Shape) -> dict[str, Any]:
    return {"point": shape.xy_px} if isinstance(shape, Point) else {"box": shape.xyxy_px}


def _without_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without the optional keys that say nothing."""
    return {
        key: value
        for key, value in record.items()
        if key in ("id", "kind") or not (value is None or value is False or value in ([], ()))
    }


def _media(part: Part) -> Media:
    kind = _MEDIA_KINDS.get(part.text("kind")) or part.wrong("kind", "image, video or text")
    paths = tuple(Path(text) for text in part.texts("paths"))
    fits = {"image": len(paths) >= 1, "video": len(paths) == 1, "text": not paths}[kind]
    if not fits:
        part.wrong("paths", "one for a video, one or more for images, none for a text")
    duration = part.seconds("duration_s") if "duration_s" in part.values else None
    return Media(kind, paths, _size(part), duration)


def _size(part: Part) -> tuple[int, int] | None:
    if "size_wh" not in part.values:
        return None
    width, height = part.numbers("size_wh", 2)
    if min(width, height) < 1 or width != int(width) or height != int(height):
        part.wrong("size_wh", "whole pixels from 1")
    return int(width), int(height)


def _annotation(value: object, media: Media, where: str) -> Annotation:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in ("track", "instance", "dialogue"):
        found = f"an annotation has the kind {shown(kind)}"
        raise UserError(where, found, "'track', 'instance' or 'dialogue'")
    part = Part.of(value, kind, _KEYS[kind], where)
    if kind == "dialogue":
        style = part.text("style", "user_qa")
        return Dialogue(part.text("question"), part.text("answer"), style)
    if kind == "track":
        rows = tuple(_observation(v, where) for v in part.items("observations", required=True))
        return Track(part.text("id"), part.text("label"), rows)
    index = part.whole("image_index", 0, 0)
    if index >= len(media.paths):
        part.wrong("image_index", f"below the number of images, {len(media.paths)}")
    return Instance(part.text("id"), part.text("label"), _shape(part), index)


def _observation(value: object, where: str) -> Observation:
    part = Part.of(value, "observation", _KEYS["observation"], where)
    return Observation(
        part.seconds("time_s"),
        part.whole("frame_index", -1, -1),
        _shape(part),
        part.flag("occluded"),
        part.flag("interpolated"),
    )


def _shape(part: Part) -> Shape:
    if ("point" in part.values) == ("box" in part.values):
        raise UserError(part.where, f"{part.name} has neither or both", "either a point or a box")
    if "point" in part.values:
        x, y = part.numbers("point", 2)
        return Point((x, y))
    left, top, right, bottom = part.numbers("box", 4)
    if right < left or bottom < top:
        part.wrong("box", "left up to right, top up to bottom")
    return Box((left, top, right, bottom))
