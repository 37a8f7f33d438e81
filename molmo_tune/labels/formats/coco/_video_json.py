"""What YouTube-VIS, TAO and other COCO-like JSON of videos have in common: lists, ids, categories.

    {"videos": [{"id": 1, …}], "categories": [{"id": 3, "name": "dog"}], "annotations": [{…}]}

A row belongs to its ``video_id``, or to the video of its image. Rows whose video or category is
not listed are lost and counted. What a row says is each format's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.geometry.frame_masks import mask_of
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import NEGATIVE, LostError, corners_of, floats
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Polygon, Shape

UNKNOWN_VIDEO = "its video is not in the list of videos"
UNKNOWN_CATEGORY = "its category is not in the list of categories"
GROUP = "group, not a single object"
NO_SHAPE = "neither box nor segmentation"

Row = Mapping[str, Any]


class VideoJson:
    """Such a file, its rows grouped by video.

    Args:
        path: of the file.
        tally: counts rows of unknown videos.

    Raises:
        UserError: the file is not JSON with these lists.
    """

    def __init__(self, path: Path, tally: Tally) -> None:
        self.path = path
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("videos"), list):
            raise UserError(path, "no list of videos", "JSON of videos, categories, annotations")
        self._data: Row = data
        self.videos = self.listed("videos")
        self._labels = {
            key_of(row.get("id")): str(row.get("name", "")).strip()
            for row in self.listed("categories")
        }
        self.rows: dict[object, list[Row]] = {key_of(v.get("id")): [] for v in self.videos}
        if len(self.rows) < len(self.videos):
            raise UserError(path, "several videos have the same id or none", "unique ids")
        video_of = {key_of(i.get("id")): i.get("video_id") for i in self.listed("images")}
        for row in self.listed("annotations"):
            self._file(row, row.get("video_id", video_of.get(key_of(row.get("image_id")))), tally)

    def listed(self, name: str) -> list[Row]:
        """A list of objects; empty when missing.

        Raises:
            UserError: it is something else.
        """
        value = self._data.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise UserError(self.path, f"{name} is no list of objects", "a list of objects")
        return value

    def label(self, category_id: object) -> str:
        """The name of a category; empty when unknown."""
        return self._labels.get(key_of(category_id), "")

    def place(self, row: Row) -> str:
        """Where a row stands."""
        return f"{self.path}: annotation {row.get('id')}"

    def _file(self, row: Row, video_id: object, tally: Tally) -> None:
        of_video = self.rows.get(key_of(video_id))
        if of_video is None:
            counts = tally.of(self.label(row.get("category_id")), "object")
            counts.read()
            counts.drop(UNKNOWN_VIDEO, self.place(row))
        else:
            of_video.append(row)


def shape_of(segmentation: object, bbox: object, size_wh: SizeWH) -> Shape:
    """The mask, polygon or box of a row.

    Raises:
        LostError: it has none that can be used.
    """
    if isinstance(segmentation, Mapping):
        return mask_of(segmentation, size_wh)
    if isinstance(segmentation, list) and segmentation:
        return Polygon(tuple(corners_of(floats(part)) for part in segmentation))
    if bbox is None:
        raise LostError(NO_SHAPE)
    left, top, width, height = floats(bbox, 4)
    if width < 0 or height < 0:
        raise LostError(NEGATIVE)
    return Box((left, top, left + width, top + height))


def kind_of(segmentation: object) -> str:
    """The word for the shape of a row."""
    if isinstance(segmentation, Mapping):
        return "mask"
    return "polygon" if segmentation else "box"


def key_of(value: object) -> object:
    """Ids are numbers or texts; anything else is an id of nothing."""
    return value if isinstance(value, int | str) else None
