"""Layouts of a Label Studio JSON file: the regions of each annotated task, with its media names.

Label Studio writes the same regions in four layouts, which this module unifies:

- *tasks*: ``{"id": 1, "data": {"video": "…/clip.mp4"}, "annotations": [{"result": [region, …]}]}``;
  ``completions`` is the old name of ``annotations``. Tasks with only ``predictions`` (a file for
  import) contain a model's output, and a note says so;
- *bare* annotations or predictions, ``{"result": [region, …]}``, which do not name their media;
- a webhook's *message* about one annotation, ``{"annotation": {…}, "task": {"data": {…}}}``;
- *JSON-MIN*: ``{"video": "…", "id": 1, "box": [value, …]}``, one entry per annotation.

If several annotators completed a task, the first annotation is kept; the others, and cancelled
annotations, are skipped and counted. Predictions of annotated tasks are suggestions and skipped.

Limitations: does not interpret regions (`formats.label_studio.label_studio_video`, `…_image`).
Source: Label Studio's documentation, "Export annotations", and its SDK's converter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.files.strict_json import short_json
from molmo_tune.labels.media_source import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from molmo_tune.labels.report import Tally

CANCELLED = "cancelled by the annotator"
FURTHER = "another annotation of the same task"
SUGGESTION = "model prediction, not an annotation"
NOT_ANNOTATED = "not annotated"
BY_MODEL = "model predictions read, because the task has no annotations"

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Region:
    """One region of a task.

    Args:
        id: id of the region.
        kind: Label Studio's type.
        labels: class labels.
        value: Label Studio's value, with the coordinates.
        place: file, task and region id.
        result: complete entry, for keys that only some kinds have (a parent, a size).
    """

    id: str
    kind: str
    labels: tuple[str, ...]
    value: Entry
    place: str
    result: Entry = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskAnnotation:
    """One annotator's regions in one image or video, and the media's possible names."""

    names: tuple[str, ...]
    regions: tuple[Region, ...]
    place: str


def read_annotations(path: Path, tally: Tally) -> list[TaskAnnotation]:
    """Return the first completed annotation of each task, in file order.

    Args:
        path: the JSON file.
        tally: counts annotations (kind ``annotation``) and tasks without any.

    Raises:
        UserError: the file is not JSON in one of the four layouts.
    """
    data = read_json(path)
    entries = data if isinstance(data, list) else [data]
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            found = f"entry {number + 1} is {_described(entry)}"
            raise UserError(path, found, "a list of Label Studio tasks or annotations")
    entries = [_unwrap_message(entry) for entry in entries]
    bare = [entry for entry in entries if "result" in entry]
    if bare:
        return _bare_annotations(bare, path, tally)
    if any(_is_task(entry) for entry in entries):
        tasks = (_task_annotation(e, n, path, tally) for n, e in enumerate(entries, 1))
        return [task for task in tasks if task is not None]
    return _minimal_annotations(entries, path, tally)


def _unwrap_message(entry: Entry) -> Entry:
    """Return the task and annotation of a webhook message; other entries unchanged."""
    task, annotation = entry.get("task"), entry.get("annotation")
    if isinstance(task, dict) and isinstance(annotation, dict):
        return {**task, "annotations": [annotation]}
    return entry


def _is_task(entry: Entry) -> bool:
    return any(key in entry for key in ("annotations", "completions", "predictions", "data"))


def _task_annotation(task: Entry, number: int, path: Path, tally: Tally) -> TaskAnnotation | None:
    place = f"{path}: task {task.get('id', number)}"
    done = _listed(task.get("annotations", task.get("completions")), place)
    suggested = _listed(task.get("predictions"), place)
    if not done and suggested and "annotations" not in task and "completions" not in task:
        tally.note(BY_MODEL, place)
        done, suggested = suggested, []
    for _ in suggested:
        _skip(tally, SUGGESTION, place)
    chosen = _first_completed(done, place, tally)
    if chosen is None:
        if not done:
            _skip(tally, NOT_ANNOTATED, place)
        return None
    data = task.get("data")
    return TaskAnnotation(
        _media_names(data if isinstance(data, dict) else {}), _regions(chosen, place), place
    )


def _bare_annotations(entries: Sequence[Entry], path: Path, tally: Tally) -> list[TaskAnnotation]:
    """Return the first completed annotation; without media names, all belong to one task."""
    if len({entry.get("task") for entry in entries}) > 1:
        found = "annotations of several tasks without media names"
        raise UserError(path, found, "one task", "export tasks as JSON")
    chosen = _first_completed(entries, str(path), tally)
    return (
        [TaskAnnotation((), _regions(chosen, str(path)), str(path))] if chosen is not None else []
    )


def _minimal_annotations(
    entries: Sequence[Entry], path: Path, tally: Tally
) -> list[TaskAnnotation]:
    """Group entries by task: one per annotation, with the task's ``id``."""
    groups: dict[object, list[Entry]] = {}
    for number, entry in enumerate(entries):
        groups.setdefault(str(entry.get("id", f"entry {number + 1}")), []).append(entry)
    annotations = []
    for key, group in groups.items():
        place = f"{path}: task {key}"
        chosen = _first_completed(group, place, tally)
        if chosen is not None:
            annotations.append(
                TaskAnnotation(_media_names(chosen), _minimal_regions(chosen, place), place)
            )
    return annotations


def _first_completed(entries: Sequence[Entry], place: str, tally: Tally) -> Entry | None:
    counts = tally.of("", "annotation")
    chosen: Entry | None = None
    for entry in entries:
        counts.read()
        if entry.get("was_cancelled") or entry.get("skipped"):
            counts.skip(CANCELLED, place)
        elif chosen is not None:
            counts.skip(FURTHER, place)
        else:
            chosen = entry
            counts.keep()
    return chosen


def _skip(tally: Tally, reason: str, place: str) -> None:
    counts = tally.of("", "prediction" if reason == SUGGESTION else "task")
    counts.read()
    counts.skip(reason, place)


def _regions(annotation: Entry, place: str) -> tuple[Region, ...]:
    """Return the regions; a region's labels can be in a separate result with its id."""
    results = _listed(annotation.get("result"), place)
    labels_of: dict[object, tuple[str, ...]] = {}
    for result in results:
        if result.get("type") == "labels" and result.get("id") is not None:
            labels_of[str(result["id"])] = _labels(_value(result), "labels")
    return tuple(
        _region(result, number, labels_of, place)
        for number, result in enumerate(results, 1)
        if result.get("type") != "labels"
    )


def _region(
    result: Entry, number: int, labels_of: Mapping[object, tuple[str, ...]], place: str
) -> Region:
    value, kind = _value(result), str(result.get("type", "region"))
    name = str(result.get("id") or number)
    labels = _labels(value, kind) or labels_of.get(name, ())
    return Region(name, kind, labels, value, f"{place}, region {name}", result)


def _minimal_regions(entry: Entry, place: str) -> tuple[Region, ...]:
    """Return the regions of JSON-MIN, whose types follow from their keys."""
    found = [
        (key, value)
        for key, values in entry.items()
        if isinstance(values, list)
        for value in values
        if isinstance(value, dict)
    ]
    return tuple(
        Region(
            str(number),
            _minimal_kind(value, key),
            _labels(value, _minimal_kind(value, key)),
            value,
            f"{place}, region {number}",
            value,
        )
        for number, (key, value) in enumerate(found, 1)
    )


def _minimal_kind(value: Entry, key: str) -> str:
    named = (name for name in value if name.endswith("labels") and name != "labels")
    return "videorectangle" if "sequence" in value else next(named, key)


def _labels(value: Entry, kind: str) -> tuple[str, ...]:
    for key in ("labels", kind):
        labels = value.get(key)
        if isinstance(labels, list):
            return tuple(str(label).strip() for label in labels if str(label).strip())
    return ()


def _media_names(data: Entry) -> tuple[str, ...]:
    """Return possible names of the image or video."""
    main = [data[key] for key in ("video", "image") if isinstance(data.get(key), str)]
    texts = main or list(data.values())
    names = (name for text in texts if isinstance(text, str) for name in _names_in(text))
    return tuple(dict.fromkeys(names))


def _names_in(text: str) -> Iterable[str]:
    """Yield the path of a URL or of ``?d=path``, and the name without Label Studio's upload prefix.

    ``/data/upload/1/1a2b3c4d-clip.mp4`` yields itself and ``clip.mp4``.
    """
    try:
        parts = urlsplit(text.strip())
    except ValueError:  # an invalid URL, such as http://[
        return
    local = parse_qs(parts.query).get("d", [""])[0]
    name = local or unquote(parts.path)
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    suffix = f".{last.rsplit('.', 1)[-1].lower()}"
    is_url = "." not in last and text.startswith(("/", "http", "s3:", "gs:"))
    if suffix not in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) and not is_url:
        return
    yield name
    prefix, _, rest = last.partition("-")
    if rest and len(prefix) == 8 and all(c in "0123456789abcdef" for c in prefix):
        yield rest


def _value(result: Entry) -> Entry:
    value = result.get("value")
    return value if isinstance(value, dict) else {}


def _listed(value: object, place: str) -> list[Entry]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(place, f"found {_described(value)}", "a list of annotations or regions")
    return value


def _described(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "str": "text"}
    return names.get(type(value).__name__) or short_json(value)
