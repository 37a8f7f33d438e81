"""AVA CSV: what people do, labeled once per second.

    video,second,x1,y1,x2,y2,action,person
    0f39OWEqJ24,0902,0.031,0.162,0.670,0.995,12,0

Boxes: corners as fractions of width and height.
Times: seconds from the start of the *complete* movie.
Gaps: between labeled seconds, boxes move on a straight line (over at most 2 s) and count as
    interpolated.
Labels: the action, by name with a file ``*action_list*`` next to the CSV, else by number
    (``action 12``). A person with two actions has a track for each.
Media: videos are named like ``video``.
Skipped: rows of two fields, which mean a second without people.
Dropped: detections, whose last field is a score and not a whole number; rows of other than 2 or 8
    fields.
Exhaustive labels: none.
Source: the readme of AVA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from molmo_tune.labels.files.text import read_text
from molmo_tune.labels.files.text_rows import NUMBER, TextRow, looks_like_rows, text_rows, whole
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, spelled
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Sample
from molmo_tune.labels.tracks import numbers
from molmo_tune.labels.video_objects import OpenVideo, VideoObjects, open_video
from molmo_tune.media.sampling import frame_on_screen

NO_PEOPLE = "a second without people"
OTHER_FIELDS = "a row of other than 2 or 8 fields"
NO_PERSON = "the person is not a whole number (a detection's score?)"
NO_NAMES = "no action_list next to the file: actions are labeled by number"


def looks_like_ava(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return looks_like_rows(head, rf"[\w-]+,\d+(,{NUMBER}){{4}},\d+,\d+")


def read_ava(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per video, in file order.

    Raises:
        UserError: the file is not text, or a name points outside the media folder.
    """
    names = _action_names(path, tally)
    videos: dict[str, list[TextRow]] = {}
    for row in text_rows(path, ","):
        videos.setdefault(row.fields[0].strip(), []).append(row)
    media.check_single_file(len(videos), path)
    found = (_sample(name, rows, names, path, media, tally) for name, rows in videos.items())
    return [sample for sample in found if sample is not None]


def _sample(
    name: str,
    rows: Sequence[TextRow],
    names: Mapping[int, str],
    path: Path,
    media: MediaSource,
    tally: Tally,
) -> Sample | None:
    place = f"{path}: video {name}"
    video = open_video(media, (name,), (), place, tally)
    objects = VideoObjects(video, tally, place)
    frames = {_frame(row.fields, video) for row in rows}
    for row in rows:
        _add(row, names, video, objects)
    return objects.sample(labeled_frames=[frame for frame in frames if frame is not None])


def _add(
    row: TextRow, names: Mapping[int, str], video: OpenVideo | None, objects: VideoObjects
) -> None:
    fields, place = row.fields, row.place
    if len(fields) == 2:
        objects.skip("", "second", place, NO_PEOPLE, absent=True)
        return
    action, person = (whole(fields[6]), whole(fields[7])) if len(fields) == 8 else (None, None)
    label = names.get(action, f"action {action}") if action is not None else ""
    if len(fields) != 8 or person is None:
        objects.drop(label, "box", place, OTHER_FIELDS if len(fields) != 8 else NO_PERSON)
    else:
        frame = _frame(fields, video)
        objects.add(label, "box", str(person), frame, place, lambda size: _box(fields, size))


def _frame(fields: Sequence[str], video: OpenVideo | None) -> int | None:
    """Return the frame on screen at the second, or the number of frames outside the video."""
    second = numbers(fields[1:2])
    if video is None or not second:
        return None
    info = video.info
    if not 0 <= second[0] < info.duration_s:
        return info.num_frames
    return frame_on_screen(info.starts_s, second[0])


def _box(fields: Sequence[str], size_wh: SizeWH) -> Box:
    left, top, right, bottom = spelled(fields[2:6])
    if right < left or bottom < top:
        raise DroppedRowError(NEGATIVE)
    width, height = size_wh
    return Box((left * width, top * height, right * width, bottom * height))


def _action_names(path: Path, tally: Tally) -> dict[int, str]:
    lists = sorted(path.parent.glob("*action_list*"))
    if not lists:
        tally.note(NO_NAMES, str(path))
        return {}
    text = read_text(lists[0])
    found = re.findall(r'name:\s*"([^"]*)"[^{}]*?\b(?:label_id|id):\s*(\d{1,9})', text)
    return {int(number): name for name, number in found}


READER = Reader(
    one_by_one(read_ava),
    looks_like_ava,
    "*.csv",
    "AVA CSV (video,second,x1,y1,x2,y2,action,person)",
)
