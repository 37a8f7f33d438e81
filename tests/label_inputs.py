"""Tiny inputs of every format of image labels, for `test_readers_images` and `fuzz_labels`.

Each is a folder: label files as text or bytes, and pictures by their sizes. The picture is 20 by 10
pixels unless a format wants another.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from molmo_tune.labels.formats.table.table import TableLayout

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

_YAML = "names: [cat, dog]\nkpt_shape: [2, 3]\nkpt_names: {0: [nose, tail]}\n"
TINY["yolo"] = Tiny(
    {
        "labels/a.txt": "0 0.2 0.55 0.2 0.5\n1 0.05 0.1 0.25 0.1 0.25 0.5\n\n"
        "1 0.05 0.1 0.25 0.1 0.25 0.5 0.05 0.5\n",
        "data.yaml": "names:\n  0: cat\n  1: dog\ntrain: /home/somebody/train\n",
    },
    "labels",
    pictures={"images/a.png": SIZE},
)
YOLO_POSE = Tiny(
    {"labels/a.txt": "0 .225 .45 .45 .9 .2 .5 2 0 0 0\n0 .2 .55 .2 .5\n", "data.yaml": _YAML},
    "labels",
    pictures={"images/a.png": SIZE},
)


def cvat(*shapes: str, meta: str = "<meta><task><name>t</name></task></meta>") -> str:
    """A CVAT file about a.png."""
    image = '<image id="0" name="a.png" width="20" height="10">'
    lines = ["<annotations>", meta, image, *shapes, "</image>", "</annotations>"]
    return "\n".join(lines)


TINY["cvat_images"] = Tiny(
    {
        "x.xml": cvat(
            '<box label="cat" xtl="2" ytl="3" xbr="6" ybr="8" occluded="1"/>',
            '<box label="cat" xtl="2" ytl="3" xbr="6" ybr="5" rotation="90"/>',
            '<polygon label="cat" points="1,1;5,1;5,5"/>',
            '<points label="dog" points="4.00,5.00"/>',
            '<mask label="cat" rle="0, 3, 1, 2" left="1" top="2" width="3" height="2"/>',
            '<ellipse label="dog" cx="10" cy="5" rx="4" ry="2"/>',
            '<skeleton label="dog"><points label="nose" points="4,5" outside="0" occluded="0"/>'
            '<points label="ear" points="1,1" outside="1"/>'
            '<points label="tail" points="6,7" occluded="1"/></skeleton>',
        )
    },
    "x.xml",
)


def studio(*results: dict[str, Any], **task: Any) -> str:
    """A Label Studio export about a.png."""
    data = {"image": "/data/upload/1/1a2b3c4d-a.png"}
    return json.dumps([{"id": 3, "data": data, "annotations": [{"result": list(results)}], **task}])


def region(kind: str, label: str = "cat", **value: Any) -> dict[str, Any]:
    """A region as Label Studio exports it; parentID and the like go beside the value."""
    outside = {key: value.pop(key) for key in ("id", "parentID", "image_rotation") if key in value}
    sizes = {"original_width": 20, "original_height": 10}
    return {"type": kind, **sizes, **outside, "value": {**value, kind: [label]}}


TINY["label_studio_image"] = Tiny(
    {
        "x.json": studio(
            region("rectanglelabels", id="r", x=10, y=30, width=20, height=50, rotation=0),
            region("rectanglelabels", x=50, y=20, width=20, height=20, rotation=90),
            region("polygonlabels", points=[[5, 10], [25, 10], [25, 50]]),
            region("ellipselabels", "dog", x=50, y=50, radiusX=20, radiusY=20, rotation=0),
            region("keypointlabels", "nose", x=20, y=50, width=1, parentID="r"),
            region("keypointlabels", "dog", x=20, y=50, width=1),
        )
    },
    "x.json",
)


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


TINY["labelme"] = Tiny(
    {
        "a.json": labelme(
            drawn("rectangle", (6, 8), (2, 3)),
            drawn("polygon", (1, 1), (5, 1), (5, 5)),
            drawn("point", (4, 5), label="dog"),
            drawn("circle", (10, 5), (10, 3), label="dog"),
            drawn("mask", (1, 2), (3, 3), mask=png_of_mask()),
            drawn("polygon", (1, 1), (5, 1), (5, 5), group_id=4),
            drawn("polygon", (11, 1), (15, 1), (15, 5), group_id=4),
        )
    },
    "a.json",
)


def voc(*objects: str, size: str = "<size><width>20</width><height>10</height></size>") -> str:
    """A Pascal VOC file about a.png."""
    head = "<annotation>\n<folder>x</folder><filename>A.png</filename>"
    return "\n".join([head, size, *objects, "</annotation>"])


def voc_box(left: object, top: object, right: object, bottom: object, label: str = "cat") -> str:
    sides = f"<xmin>{left}</xmin><xmax>{right}</xmax><ymin>{top}</ymin><ymax>{bottom}</ymax>"
    return f"<object><name>{label}</name><difficult>1</difficult><bndbox>{sides}</bndbox></object>"


TINY["pascal_voc"] = Tiny({"a.xml": voc(voc_box(2, 3, 6, 8), voc_box(1, 1, 5, 5, "dog"))}, "a.xml")

_OPEN_COLUMNS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
TINY["open_images"] = Tiny(
    {
        "train-annotations-bbox.csv": _OPEN_COLUMNS
        + "a,xclick,/m/1,1,0.1,0.3,0.3,0.8,0,0,0,0,0\n"
        + "a,xclick,/m/2,1,0.1,0.3,0.3,0.8,0,0,0,1,0\n"
        + "a,xclick,/m/2,1,0,1,0,1,0,0,1,0,0\n"
        + "a,xclick,/m/3,1,0,1,0,1,0,0,0,0,1\n",
        "class-descriptions.csv": "/m/1,cat\n/m/2,dog\n/m/3,car\n",
    },
    "train-annotations-bbox.csv",
)
TINY["dota"] = Tiny(
    {
        "labelTxt/a.txt": "imagesource:GoogleEarth\r\ngsd:0.1\r\n"
        "1 1 5 1 5 5 1 5 cat 0\r\n2.0 3.0 6.0 3.0 6.0 8.0 2.0 8.0 dog\r\n"
    },
    "labelTxt",
    pictures={"images/a.png": SIZE},
)


def via(*regions: dict[str, Any]) -> str:
    """A VIA 2 file about a.png."""
    return json.dumps({"a.png99": {"filename": "a.png", "size": 99, "regions": list(regions)}})


def via_region(name: str, label: object = "cat", **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": {"label": label}}


TINY["via"] = Tiny(
    {
        "x.json": via(
            via_region("rect", x=2, y=3, width=4, height=5),
            via_region("polygon", all_points_x=[1, 5, 5], all_points_y=[1, 1, 5]),
            via_region("point", {"dog": True, "cat": False}, cx=4, cy=5),
            via_region("circle", "dog", cx=10, cy=5, r=2),
            via_region("ellipse", "dog", cx=10, cy=5, rx=2, ry=4, theta=math.pi / 2),
        )
    },
    "x.json",
)


def createml(*boxes: tuple[str, dict[str, Any]]) -> str:
    """A CreateML file about a.png."""
    rows = [{"label": label, "coordinates": box} for label, box in boxes]
    return json.dumps([{"image": "a.png", "annotations": rows}])


CENTERED = {"x": 4, "y": 5.5, "width": 4, "height": 5}
TINY["createml"] = Tiny({"x.json": createml(("cat", CENTERED))}, "x.json")
_CORNERS = [{"x": x, "y": y} for x, y in ((1, 1), (5, 1), (5, 5))]
_NOSE = [{"x": 4, "y": 5, "confidence": 0.9, "class": "nose"}]
TINY["roboflow_hosted"] = Tiny(
    {
        "a.json": json.dumps(
            {
                "image": {"width": "20", "height": 10},
                "predictions": [
                    {"class": "cat", "confidence": 0.9, **CENTERED},
                    {"class": "cat", "confidence": 0.9, **CENTERED, "points": _CORNERS},
                    {"class": "dog", "confidence": 0.9, **CENTERED, "keypoints": _NOSE},
                ],
            }
        )
    },
    "a.json",
)
TINY["table"] = Tiny(
    {
        "x.csv": "file,class,x1,y1,x2,y2,more\n"
        "a.png,cat,10,30,30,80,1\na.png,dog,5,10,25,50,2\na.png,cat,,,,,3\n"
    },
    "x.csv",
    options={"layout": TableLayout("file", "class", ("x1", "y1", "x2", "y2"), "percent")},
)


def pixmo(points: object, count: int | None = None, label: str = "cat", **more: Any) -> str:
    """A row of PixMo about a.png."""
    known = points if isinstance(points, list) else points["x"] if isinstance(points, dict) else []
    row = {"image_url": "https://x.example/b/a.png?w=1", "image_sha256": "ab12", "label": label}
    count = len(known) if count is None else count
    return json.dumps({**row, "count": count, "points": points, **more}) + "\n"


TINY["pixmo_points"] = Tiny(
    {"x.jsonl": pixmo([{"x": 20.0, "y": 50}]) + pixmo([{"x": 50, "y": 50}], 3, "dog")}, "x.jsonl"
)
TINY["pixmo_count"] = Tiny({"x.jsonl": pixmo({"x": [4.0, 5], "y": [5.0, 6]}, 3)}, "x.jsonl")
