"""The ``<meta>`` of a CVAT export: which videos it is about, and which track lies on which.

Exports of a task, a job and a project write different ``<meta>``, and some files have none. A task
or job names one video (``<source>``); a project lists several tasks, its tracks name theirs
(``task_id``), and the title of a task is all that tells its video. ``<original_size>`` is the size
of the frames that were annotated.

What it does not do: look for the videos (`molmo_tune.labels.media_source`), or read tracks.
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
    """One video of an export: its possible names, its size if stated, and where that is said."""

    names: tuple[str, ...]
    hints: tuple[str, ...]
    size_wh: tuple[int, int] | None
    where: str


def read_tasks(root: Node, path: Path) -> dict[str, CvatTask]:
    """The videos of the export by task id; under ``""`` where there is only one."""
    meta = root.at("meta") or Node("meta", {}, root.line)
    project = [node for tasks in meta.children for node in _project_tasks(tasks)]
    if project:
        return {
            task.text_at("id"): _task(task, path, is_only=len(project) == 1) for task in project
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
    """A task of a project. With several of them the title is all that tells their videos apart."""
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
    """The tracks (or elements of another tag) of each task, in the order of the tasks.

    Raises:
        UserError: a track belongs to a task that ``<meta>`` does not list.
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
    """Coordinates are pixels: they mean nothing on a video of another size.

    Raises:
        UserError: the sizes differ.
    """
    if task.size_wh is None or task.size_wh == info.size_wh:
        return
    (width, height), (own_width, own_height) = task.size_wh, info.size_wh
    found = f"annotated on {width}x{height} pixels, but {video} has {own_width}x{own_height}"
    raise UserError(task.where, found, "equal sizes", "give the video that was annotated")
