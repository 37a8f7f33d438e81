"""Builders of small image label files, for tests of single rows; whole files are in `tests/labels`.

Images are 20 by 10 pixels.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (20, 10)


@dataclass(frozen=True)
class Tiny:
    """Label files by name, the one to read, and the images next to them."""

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


def cvat(*shapes: str, meta: str = "<meta><task><name>t</name></task></meta>") -> str:
    """A CVAT file about a.png."""
    image = '<image id="0" name="a.png" width="20" height="10">'
    lines = ["<annotations>", meta, image, *shapes, "</image>", "</annotations>"]
    return "\n".join(lines)


def studio(*results: dict[str, Any], **task: Any) -> str:
    """A Label Studio export about a.png."""
    data = {"image": "/data/upload/1/1a2b3c4d-a.png"}
    return json.dumps([{"id": 3, "data": data, "annotations": [{"result": list(results)}], **task}])


def region(kind: str, label: str = "cat", **value: Any) -> dict[str, Any]:
    """A region as Label Studio exports it; parentID and the like go next to the value."""
    outside = {key: value.pop(key) for key in ("id", "parentID", "image_rotation") if key in value}
    sizes = {"original_width": 20, "original_height": 10}
    return {"type": kind, **sizes, **outside, "value": {**value, kind: [label]}}


def png_of_mask() -> str:
    """A mask of 3 by 2 pixels, 111 above 011, as LabelMe keeps it."""
    picture = Image.new("L", (3, 2), 255)
    picture.putpixel((0, 1), 0)
    with BytesIO() as file:
        picture.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()


def labelme(*shapes: dict[str, Any], **more: Any) -> str:
    """A LabelMe file about a.png."""
    head = {"version": "5.5.0", "imagePath": "..\\pictures\\a.png", "imageData": None}
    return json.dumps({**head, "imageWidth": 20, "imageHeight": 10, "shapes": list(shapes), **more})


def drawn(kind: str, *points: tuple[float, float], label: str = "cat", **more: Any):
    return {"label": label, "shape_type": kind, "points": list(map(list, points)), **more}


def voc(*objects: str, size: str = "<size><width>20</width><height>10</height></size>") -> str:
    """A Pascal VOC file about a.png."""
    head = "<annotation>\n<folder>x</folder><filename>A.png</filename>"
    return "\n".join([head, size, *objects, "</annotation>"])


def voc_box(left: object, top: object, right: object, bottom: object, label: str = "cat") -> str:
    sides = f"<xmin>{left}</xmin><xmax>{right}</xmax><ymin>{top}</ymin><ymax>{bottom}</ymax>"
    return f"<object><name>{label}</name><difficult>1</difficult><bndbox>{sides}</bndbox></object>"


def via(*regions: dict[str, Any]) -> str:
    """A VIA 2 file about a.png."""
    return json.dumps({"a.png99": {"filename": "a.png", "size": 99, "regions": list(regions)}})


def via_region(name: str, label: object = "cat", **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": {"label": label}}


def createml(*boxes: tuple[str, dict[str, Any]]) -> str:
    """A CreateML file about a.png."""
    rows = [{"label": label, "coordinates": box} for label, box in boxes]
    return json.dumps([{"image": "a.png", "annotations": rows}])


CENTERED = {"x": 4, "y": 5.5, "width": 4, "height": 5}


def pixmo(points: object, count: int | None = None, label: str = "cat", **more: Any) -> str:
    """A row of PixMo about a.png."""
    known = points if isinstance(points, list) else points["x"] if isinstance(points, dict) else []
    row = {"image_url": "https://x.example/b/a.png?w=1", "image_sha256": "ab12", "label": label}
    count = len(known) if count is None else count
    return json.dumps({**row, "count": count, "points": points, **more}) + "\n"
