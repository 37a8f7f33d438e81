"""Lists, ids and categories that YouTube-VIS, TAO and other COCO-like JSON of videos share.

    {"videos": [{"id": 1, …}], "categories": [{"id": 3, "name": "dog"}], "annotations": [{…}]}

A row belongs to its ``video_id``, or to the video of its image. Rows whose video or category is not
listed are dropped and counted. Each format's module defines the rest of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.json import read_json
from molmo_tune.labels.geometry.frame_masks import mask_of
from molmo_tune.labels.geometry.shapes import SizeWH
from molmo_tune.labels.image_objects import NEGATIVE, DroppedRowError, corners_of, floats
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Box, Polygon, Shape

UNKNOWN_VIDEO = "video not in the list of videos"
UNKNOWN_CATEGORY = "category not in the list of categories"
GROUP = "group, not a single object"
NO_SHAPE = "neither bbox nor segmentation"

Row = Mapping[str, Any]


class VideoJson:
    """COCO-like JSON file with its rows grouped by video.

    Args:
        path: the JSON file.
        tally: counts rows of unknown videos.

    Raises:
        UserError: the file is not JSON with these lists, or ids repeat.
    """

    def __init__(self, path: Path, tally: Tally) -> None:
        self.path = path
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("videos"), list):
            raise UserError(path, "no list of videos", "videos, categories and annotations")
        self._data: Row = data
        self.videos = self.listed("videos")
        self._labels = {
            key_of(row.get("id")): str(row.get("name", "")).strip()
            for row in self.listed("categories")
        }
        self.rows: dict[object, list[Row]] = {key_of(v.get("id")): [] for v in self.videos}
        if len(self.rows) < len(self.videos):
            raise UserError(path, "videos share an id or have none", "unique ids")
        video_of = {key_of(i.get("id")): i.get("video_id") for i in self.listed("images")}
        for row in self.listed("annotations"):
            self._file(row, row.get("video_id", video_of.get(key_of(row.get("image_id")))), tally)

    def listed(self, name: str) -> list[Row]:
        """Return a list of objects, empty if missing.

        Raises:
            UserError: the value is not a list of objects.
        """
        value = self._data.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise UserError(self.path, f"{name} is not a list", "a list of objects")
        return value

    def label(self, category_id: object) -> str:
        """Return the name of a category, empty if unknown."""
        return self._labels.get(key_of(category_id), "")

    def place(self, row: Row) -> str:
        """Return the place of a row for the report."""
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
    """Return the mask, polygon or box of a row in pixels.

    Raises:
        DroppedRowError: the row has no usable shape.
    """
    if isinstance(segmentation, Mapping):
        return mask_of(segmentation, size_wh)
    if isinstance(segmentation, list) and segmentation:
        return Polygon(tuple(corners_of(floats(part)) for part in segmentation))
    if bbox is None:
        raise DroppedRowError(NO_SHAPE)
    left, top, width, height = floats(bbox, 4)
    if width < 0 or height < 0:
        raise DroppedRowError(NEGATIVE)
    return Box((left, top, left + width, top + height))


def kind_of(segmentation: object) -> str:
    """Return the name of a row's shape in the report."""
    if isinstance(segmentation, Mapping):
        return "mask"
    return "polygon" if segmentation else "box"


def key_of(value: object) -> object:
    """Return an id that is an integer or text; None for anything else."""
    return value if isinstance(value, int | str) else None
