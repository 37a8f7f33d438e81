"""SoccerNet ``Labels-v2.json``: moments of a match, per half.

    {"UrlLocal": "england_epl/…/", "annotations": [
        {"gameTime": "1 - 15:6", "label": "Goal", "position": "906000", "visibility": "visible"}]}

Times: ``position`` is milliseconds from the start of the half. Of ``gameTime`` only the half is
    read, because its seconds are not zero-padded. A moment is an event that starts and ends at the
    same time.
Media: each half is a video of its own, and a sample: ``1_720p.mkv``, ``1_224p.mkv``, ``1_HQ.mkv``
    or ``1.mkv``, in the folder ``UrlLocal`` if there is one.
Skipped: actions with the visibility ``not shown``, which cannot be seen.
Dropped: rows whose ``gameTime`` does not start with the number of a half.
Exhaustive labels: none.
Source: the SoccerNet action spotting development kit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.files.text_rows import whole
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

SUFFIXES = ("_720p.mkv", "_224p.mkv", "_HQ.mkv", ".mkv")
NOT_SHOWN = "not shown in the broadcast"
NO_HALF = "gameTime does not start with the number of a half"

Row = Mapping[str, Any]


def looks_like_soccernet(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return head.lstrip().startswith("{") and '"gameTime"' in head


def read_soccernet(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return one sample per half with events.

    Raises:
        UserError: the file is not JSON of this format, or a name points outside the media folder.
    """
    data = read_json(path)
    rows = data.get("annotations") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(path, "no list of annotations", "SoccerNet JSON")
    halves: dict[str, list[tuple[str, Row]]] = {}
    for number, row in enumerate(rows, 1):
        place = f"{path}: annotation {number}"
        found = re.match(r"\s*(\d)\s*-", str(row.get("gameTime", "")))
        if found:
            halves.setdefault(found.group(1), []).append((place, row))
        else:
            counts = tally.of(str(row.get("label") or ""), "span")
            counts.read()
            counts.drop(NO_HALF, place)
    media.check_single_file(len(halves), path)
    folder = data.get("UrlLocal")
    folder = folder.strip("/") + "/" if isinstance(folder, str) and folder.strip("/") else ""
    samples = (_sample(folder, half, halves[half], path, media, tally) for half in sorted(halves))
    return [sample for sample in samples if sample is not None]


def _sample(
    folder: str,
    half: str,
    rows: Sequence[tuple[str, Row]],
    path: Path,
    media: MediaSource,
    tally: Tally,
) -> Sample | None:
    where = f"{path}: half {half}"
    names = [f"{folder}{half}{suffix}" for suffix in SUFFIXES]
    objects = VideoObjects(open_video(media, names, (), where, tally), tally, where)
    for place, row in rows:
        label = str(row.get("label") or "")
        if row.get("visibility") == "not shown":
            objects.skip(label, "span", place, NOT_SHOWN)
            continue
        position = whole(str(row.get("position")))
        time_s = None if position is None else position / 1000
        objects.span(label, time_s, time_s, place)
    return objects.sample()


READER = Reader(
    one_by_one(read_soccernet),
    looks_like_soccernet,
    "**/*.json",
    "SoccerNet JSON (annotations with gameTime)",
)
