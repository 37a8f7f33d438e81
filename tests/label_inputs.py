"""Tiny inputs of every format of image labels, for `test_readers_images` and `fuzz_labels`.

Each is a folder: label files as text or bytes, and pictures by their sizes. The picture is 20 by 10
pixels unless a format wants another.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (20, 10)


@dataclass(frozen=True)
class Tiny:
    """Label files by name, which of them to read, and the pictures beside them."""

    files: dict[str, str | bytes]
    path: str
    media: str | None = None
    pictures: dict[str, tuple[int, int]] = field(default_factory=lambda: {"a.png": SIZE})
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> tuple[Path, Path | None]:
        """Write it; the label path and the media path."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        for name, size in self.pictures.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(folder / name)
        return folder / self.path, folder / self.media if self.media else None


def coco(*rows: dict[str, Any], image: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A COCO file about a.png with categories 1 (cat) and 3 (dog: nose, tail)."""
    base = {"id": 7, "file_name": "a.png", "width": 20, "height": 10, **(image or {})}
    annotations = [{"id": n, "image_id": 7, "category_id": 1, **r} for n, r in enumerate(rows, 1)]
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 3, "name": "dog", "keypoints": ["nose", "tail"]},
    ]
    return {"images": [base], "annotations": annotations, "categories": categories, **more}


TINY: dict[str, Tiny] = {
    "coco": Tiny(
        {
            "x.json": json.dumps(
                coco(
                    {"bbox": [2, 3, 4, 5], "segmentation": []},
                    {"bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 1, 5, 5]]},
                    {"segmentation": {"size": [10, 20], "counts": [11, 3, 7, 3, 176]}},
                    {"segmentation": {"size": [10, 20], "counts": "P13U5"}},
                    {
                        "bbox": [0, 0, 9, 9],
                        "category_id": 3,
                        "keypoints": [4, 5, 2, 0, 0, 0],
                    },
                    {"category_id": 3, "keypoints": [4, 5, 2, 6, 7, 1]},
                    {"bbox": [0, 0, 9, 9], "iscrowd": 1},
                )
            )
        },
        "x.json",
    ),
}
