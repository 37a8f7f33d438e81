"""CVAT tags as events: ``<tag>`` in an export "CVAT for images 1.1" of a *video* task.

    <image id="10" name="frame_000010" width="640" height="480"><tag label="goal"/></image>

Times: the number in the image's name is the 0-based frame of the original video. Times come from
    the video, because the file has no frame rate.
Objects: CVAT exports tags in this format only. A tag on successive images is one event, from the
    start of the first frame to the end of the last. Images are successive if no other is between
    them in the file and their step is the smallest of the file.
Media: the video named in ``<meta>`` (`formats.cvat._tasks`).
Skipped: tags that continue an event.
Dropped: shapes (export them as CVAT for video), and tags without a frame number.
Exhaustive labels: none.
Source: CVAT manual, "XML annotation format".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.files.xml import Node, read_xml
from molmo_tune.labels.formats.cvat._tasks import CvatTask, group_by_task, read_tasks
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.tracks import NO_FRAME
from molmo_tune.labels.video_objects import VideoObjects, open_video

NOT_A_TAG = "shape, not a tag; export the task as CVAT for video 1.1"

_FRAME = re.compile(r"frame_(\d{1,12})(\.\w+)?$")


@dataclass(slots=True)
class _Run:
    label: str
    first: int
    last: int
    place: str


def looks_like_cvat_tags(head: str) -> bool:
    """Whether the beginning of a file matches this format."""
    is_images = re.search(r'<image\s[^<>]*name="[^"]*frame_\d+', head)
    return bool(is_images and re.search(r"<tag\s", head))


def read_cvat_tags(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video of the file.

    Raises:
        UserError: the file is not CVAT XML, or a name points outside the media folder.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "<annotations> of CVAT")
    tasks = read_tasks(root, path)
    groups = group_by_task(root, path, tasks, "image")
    media.check_single_file(len(groups), path)
    found = (_sample(tasks[key], groups[key], path, media, tally) for key in groups)
    return [sample for sample in found if sample is not None]


def _sample(
    task: CvatTask, images: Sequence[Node], path: Path, media: MediaSource, tally: Tally
) -> Sample | None:
    video = open_video(media, task.names, task.hints, task.where, tally, task.size_wh)
    objects = VideoObjects(video, tally, task.where)
    for run in _runs(images, path, objects):
        start, end = objects.frame_time(run.first), objects.frame_end(run.last)
        objects.span(run.label, start, end, run.place)
    return objects.sample()


def _runs(images: Sequence[Node], path: Path, objects: VideoObjects) -> list[_Run]:
    frames = [_frame(node) for node in images]
    steps = [b - a for a, b in pairwise(sorted(f for f in frames if f is not None)) if b > a]
    step, runs = min(steps, default=1), list[_Run]()
    open_runs: dict[str, _Run] = {}
    for node, frame in zip(images, frames, strict=True):
        here: dict[str, _Run] = {}
        for child in node.children:
            label, place = child.attributes.get("label", "").strip(), f"{path}:{child.line}"
            if child.tag != "tag":
                objects.drop(label, child.tag, place, NOT_A_TAG)
            elif frame is None:
                objects.drop(label, "tag", place, NO_FRAME)
            elif label in open_runs and frame - open_runs[label].last == step:
                here[label] = open_runs[label]
                here[label].last = frame
                objects.merged(label, place)
            elif label not in here:
                here[label] = _Run(label, frame, frame, place)
                runs.append(here[label])
            else:
                objects.merged(label, place)
        open_runs = here
    return runs


def _frame(node: Node) -> int | None:
    found = _FRAME.search(node.attributes.get("name", ""))
    return int(found.group(1)) if found else None


READER = Reader(
    one_by_one(read_cvat_tags),
    looks_like_cvat_tags,
    "*.xml",
    "CVAT for images 1.1 of a video task, with <tag>",
)
