"""The ``<meta>`` element of a CVAT export: its videos, and which tracks belong to which.

Exports of a task, a job and a project have different ``<meta>`` elements, and some files have none.
A task or job names one video (``<source>``). A project lists several tasks; its tracks name theirs
(``task_id``), and only the title of a task identifies its video. ``<original_size>`` is the size of
the annotated frames.

Limitations: does not look up videos (`molmo_tune.labels.media_source`) or read tracks.
Source: CVAT's exporter (``dataset_manager/bindings.py``) and its manual, "XML annotation format".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.xml import Node
from molmo_tune.media.video import VideoInfo


@dataclass(frozen=True, slots=True)
class CvatTask:
    """One video of an export: its possible names, its stated size and its ``file:line``."""

    names: tuple[str, ...]
    hints: tuple[str, ...]
    size_wh: tuple[int, int] | None
    where: str


def read_tasks(root: Node, path: Path) -> dict[str, CvatTask]:
    """Return the videos of an export by task id, or a single video under ``""``."""
    meta = root.at("meta") or Node("meta", {}, root.line)
    project_tasks = [node for tasks in meta.children for node in _project_tasks(tasks)]
    if project_tasks:
        return {
            task.text_at("id"): _task(task, path, is_only=len(project_tasks) == 1)
            for task in project_tasks
        }
    inner = next((node for node in meta.children if node.tag in ("task", "job")), meta)
    source = meta.text_at("source") or inner.text_at("source")
    hints = tuple(name for name in (inner.text_at("name"), path.stem) if name)
    names = (source,) if source else ()
    return {"": CvatTask(names, hints, _size(inner) or _size(meta), f"{path}:{inner.line}")}


def _project_tasks(node: Node) -> Iterable[Node]:
    tasks = node.at("tasks") if node.tag == "project" else None
    return tasks.all("task") if tasks is not None else ()


def _task(node: Node, path: Path, *, is_only: bool) -> CvatTask:
    """Return a task of a project; with several tasks, the title identifies the video."""
    source, title = node.text_at("source"), node.text_at("name")
    names, hints = ((source,), (title, path.stem)) if is_only else ((source, title), ())
    where = f"{path}:{node.line}"
    return CvatTask(tuple(filter(None, names)), tuple(filter(None, hints)), _size(node), where)


def _size(node: Node) -> tuple[int, int] | None:
    texts = (node.text_at("original_size", "width"), node.text_at("original_size", "height"))
    return (int(texts[0]), int(texts[1])) if all(text.isdecimal() for text in texts) else None


def group_by_task(
    root: Node, path: Path, tasks: dict[str, CvatTask], tag: str = "track"
) -> dict[str, list[Node]]:
    """Return the tracks (or elements with the given tag) of each task, in the order of the tasks.

    Raises:
        UserError: ``<meta>`` does not list the task of a track.
    """
    groups: dict[str, list[Node]] = {key: [] for key in tasks}
    unnamed: set[str] = set()
    for track in root.all(tag):
        key = track.attributes.get("task_id", "")
        if "" in tasks:
            unnamed.add(key)
            key = ""
        if key not in groups or len(unnamed) > 1:
            found = f"the {tag} belongs to task {track.attributes.get('task_id', '(none)')}"
            where = f"{path}:{track.line}"
            raise UserError(where, found, "a task listed in <meta>", "export the project again")
        groups[key].append(track)
    return groups


def check_size(task: CvatTask, video: Path, info: VideoInfo) -> None:
    """Check that the video has the annotated size, because coordinates are pixels.

    Raises:
        UserError: the sizes differ.
    """
    if task.size_wh is None or task.size_wh == info.size_wh:
        return
    (width, height), (own_width, own_height) = task.size_wh, info.size_wh
    found = f"annotated at {width}x{height} pixels, but {video} is {own_width}x{own_height}"
    raise UserError(task.where, found, "equal sizes", "give the annotated video as media")
