"""A `Sample` as a plain JSON object, and back: `format_record` and `parse_record`.

The object is one line of molmo-tune's JSONL; `formats.jsonl` lists its keys.
``parse_record(format_record(sample))`` equals the sample. Keys with their default value (no
duration, not occluded) are omitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.grounding.answers import MAX_OPTIONS, read_choice
from molmo_tune.labels.files.strict_json import JsonObject, short_json
from molmo_tune.labels.sample import (
    Annotation,
    Dialogue,
    Instance,
    Media,
    MediaKind,
    Observation,
    Sample,
    Span,
    Track,
)
from molmo_tune.labels.shape_record import SHAPE_KEYS, format_shape, parse_shape

FORMAT = "molmo-tune/1"

_KEYS = {
    "sample": ("format", "id", "media", "annotations", "exhaustive_labels"),
    "media": ("kind", "paths", "size_wh", "duration_s"),
    "track": ("kind", "id", "label", "observations"),
    "observation": ("time_s", "frame_index", *SHAPE_KEYS, "occluded", "interpolated"),
    "instance": ("kind", "id", "label", *SHAPE_KEYS, "image_index"),
    "span": ("kind", "label", "start_s", "end_s"),
    "dialogue": ("kind", "question", "answer", "style", "options"),
}
_KINDS = ("track", "instance", "span", "dialogue")
_MEDIA_KINDS: dict[str, MediaKind] = {"image": "image", "video": "video", "text": "text"}


def format_record(sample: Sample) -> dict[str, object]:
    """Return the object of a sample; numbers are not checked."""
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
    """Return the sample of an object.

    Args:
        value: parsed JSON.
        where: ``file:line`` for the messages.

    Raises:
        UserError: the value is not such an object.
    """
    if isinstance(value, dict) and value.get("format") != FORMAT:
        found = f"format is {short_json(value.get('format'))}"
        raise UserError(where, found, f"{FORMAT!r} on every line")
    part = JsonObject.of(value, "sample", _KEYS["sample"], where)
    media = _media(JsonObject.of(part.values.get("media"), "media", _KEYS["media"], where))
    annotations = tuple(_annotation(v, media, where) for v in part.items("annotations"))
    return Sample(part.text("id"), media, annotations, part.texts("exhaustive_labels"))


def _record(annotation: Annotation) -> dict[str, object]:
    if isinstance(annotation, Dialogue):
        record: dict[str, object] = {"question": annotation.question, "answer": annotation.answer}
        options = _without_defaults({"options": annotation.options})
        return {"kind": "dialogue", **record, "style": annotation.style, **options}
    if isinstance(annotation, Span):
        times = {"start_s": annotation.start_s, "end_s": annotation.end_s}
        return {"kind": "span", "label": annotation.label, **times}
    named = {"id": annotation.id, "label": annotation.label}
    if isinstance(annotation, Track):
        rows = [_observation_record(o) for o in annotation.observations]
        return {"kind": "track", **named, "observations": rows}
    record = {"kind": "instance", **named, **format_shape(annotation.shape)}
    return {**record, **({"image_index": i} if (i := annotation.image_index) else {})}


def _observation_record(o: Observation) -> dict[str, object]:
    flags = {"occluded": o.occluded, "interpolated": o.interpolated}
    index = {} if o.frame_index == -1 else {"frame_index": o.frame_index}
    return {"time_s": o.time_s, **index, **format_shape(o.shape), **_without_defaults(flags)}


def _without_defaults(record: Mapping[str, object]) -> dict[str, object]:
    """Return a record without optional keys that have their default value."""
    return {
        key: value
        for key, value in record.items()
        if key in ("id", "kind") or not (value is None or value is False or value in ([], ()))
    }


def _media(part: JsonObject) -> Media:
    kind = _MEDIA_KINDS.get(part.text("kind")) or part.reject("kind", "image, video or text")
    paths = tuple(Path(text) for text in part.texts("paths"))
    fits = {"image": len(paths) >= 1, "video": len(paths) == 1, "text": not paths}[kind]
    if not fits:
        part.reject("paths", "one for a video, at least one for images, none for text")
    duration = part.seconds("duration_s") if "duration_s" in part.values else None
    return Media(kind, paths, _size(part), duration)


def _size(part: JsonObject) -> tuple[int, int] | None:
    if "size_wh" not in part.values:
        return None
    width, height = part.numbers("size_wh", 2)
    if min(width, height) < 1 or width != int(width) or height != int(height):
        part.reject("size_wh", "two integers of at least 1")
    return int(width), int(height)


def _annotation(value: object, media: Media, where: str) -> Annotation:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in _KINDS:
        found = f"annotation of kind {short_json(kind)}"
        raise UserError(where, found, "'track', 'instance', 'span' or 'dialogue'")
    part = JsonObject.of(value, kind, _KEYS[kind], where)
    if kind == "dialogue":
        return _dialogue(part)
    if kind == "span":
        return _span(part, media)
    if kind == "track":
        observations = part.items("observations", required=True)
        track = tuple(_observation(v, media, where) for v in observations)
        return Track(part.text("id"), part.text("label"), track)
    index = part.integer("image_index", 0, 0)
    if index >= len(media.paths):
        part.reject("image_index", f"an index below the number of images, {len(media.paths)}")
    return Instance(part.text("id"), part.text("label"), parse_shape(part, media), index)


def _dialogue(part: JsonObject) -> Dialogue:
    answer, options = part.text("answer"), part.texts("options")
    if options:
        distinct = len({option.strip().casefold() for option in options})
        if not 2 <= distinct == len(options) <= MAX_OPTIONS:
            part.reject("options", f"2 to {MAX_OPTIONS} distinct strings")
        if read_choice(answer, options) is None:
            part.reject("answer", "the text or letter of one option")
    return Dialogue(part.text("question"), answer, part.text("style", "user_qa"), options)


def _span(part: JsonObject, media: Media) -> Span:
    if media.kind != "video":
        raise UserError(part.where, f"a span in media of kind {media.kind}", "a video")
    start, end = part.seconds("start_s"), part.seconds("end_s")
    if end < start:
        part.reject("end_s", f"seconds, at least start_s = {start:g}")
    return Span(part.text("label"), start, end)


def _observation(value: object, media: Media, where: str) -> Observation:
    part = JsonObject.of(value, "observation", _KEYS["observation"], where)
    return Observation(
        part.seconds("time_s"),
        part.integer("frame_index", -1, -1),
        parse_shape(part, media),
        part.flag("occluded"),
        part.flag("interpolated"),
    )
