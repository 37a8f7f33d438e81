"""THE list of label readers, and the two questions put to it: read this, and what is this.

A format is one module beside this one (how to tell it, how to read one file of it) and one line in
`READERS`; the recipe has a word for it in `LABEL_FORMATS`, and a test keeps the two equal. A reader
is a pure function of a file and a media folder; what is the same for all formats is done here:
folders of label files, files of another format, ids that are unique, and the rule that reading
never ends with nothing and no error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.activitynet import looks_like_activitynet, read_activitynet
from molmo_tune.labels.ava import looks_like_ava, read_ava
from molmo_tune.labels.centred_boxes import (
    looks_like_createml,
    looks_like_roboflow_hosted,
    read_createml,
    read_roboflow_hosted,
)
from molmo_tune.labels.coco import looks_like_coco, read_coco
from molmo_tune.labels.cvat_images import looks_like_cvat_images, read_cvat_images
from molmo_tune.labels.cvat_tags import looks_like_cvat_tags, read_cvat_tags
from molmo_tune.labels.cvat_video import looks_like_cvat_video, read_cvat_video
from molmo_tune.labels.deeplabcut import looks_like_deeplabcut, read_deeplabcut
from molmo_tune.labels.dota import looks_like_dota, read_dota
from molmo_tune.labels.elan import looks_like_elan, read_elan
from molmo_tune.labels.expressions import looks_like_expressions, read_expressions
from molmo_tune.labels.jsonl import looks_like_jsonl, read_jsonl_source
from molmo_tune.labels.kitti_tracking import looks_like_kitti_tracking, read_kitti_tracking
from molmo_tune.labels.label_studio_image import (
    looks_like_label_studio_image,
    read_label_studio_image,
)
from molmo_tune.labels.label_studio_video import (
    looks_like_label_studio_video,
    read_label_studio_video,
)
from molmo_tune.labels.labelme import looks_like_labelme, read_labelme
from molmo_tune.labels.mask_folders import looks_like_mask_folder, read_mask_folder
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.molmo2_video_point import (
    looks_like_molmo2_video_point,
    read_molmo2_video_point,
)
from molmo_tune.labels.molmo2_video_track import (
    looks_like_molmo2_video_track,
    read_molmo2_video_track,
)
from molmo_tune.labels.mot import looks_like_mot, read_mot
from molmo_tune.labels.mots import (
    looks_like_kitti_mots,
    looks_like_mots_challenge,
    read_kitti_mots,
    read_mots_challenge,
)
from molmo_tune.labels.open_images import looks_like_open_images, read_open_images
from molmo_tune.labels.opening import read_head
from molmo_tune.labels.pascal_voc import looks_like_pascal_voc, read_pascal_voc
from molmo_tune.labels.pixmo import (
    looks_like_pixmo_count,
    looks_like_pixmo_points,
    read_pixmo_count,
    read_pixmo_points,
)
from molmo_tune.labels.report import ConversionReport, Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.sav import looks_like_sav, read_sav
from molmo_tune.labels.scalabel import looks_like_scalabel, read_scalabel
from molmo_tune.labels.sleap import looks_like_sleap, read_sleap
from molmo_tune.labels.soccernet import looks_like_soccernet, read_soccernet
from molmo_tune.labels.sot import looks_like_sot, read_sot
from molmo_tune.labels.supervision import looks_like_supervision, read_supervision
from molmo_tune.labels.table import TableLayout, never_looks_like, read_table
from molmo_tune.labels.tao import looks_like_tao, read_tao
from molmo_tune.labels.tapvid import looks_like_tapvid_trusted, read_tapvid_trusted
from molmo_tune.labels.track_instruction import looks_like_track_instruction, read_track_instruction
from molmo_tune.labels.tracks import unique
from molmo_tune.labels.ultralytics_track import looks_like_ultralytics_track, read_ultralytics_track
from molmo_tune.labels.via import looks_like_via, read_via
from molmo_tune.labels.yolo import looks_like_yolo, read_yolo
from molmo_tune.labels.youtube_vis import looks_like_youtube_vis, read_youtube_vis


@dataclass(frozen=True, slots=True)
class Reader:
    """One label format.

    Args:
        read: samples of the files, in order, given the media and the tally that counts the rows.
        looks_like: whether the beginning of a file is of this format.
        pattern: names of such files in a folder.
        title: what the format is called, and what it is told by.
    """

    read: Callable[..., list[Sample]]
    looks_like: Callable[[str], bool]
    pattern: str
    title: str


def one_by_one(
    read: Callable[[Path, MediaSource, Tally], list[Sample]],
) -> Callable[[Sequence[Path], MediaSource, Tally], list[Sample]]:
    """A reader of one file as one of several, for formats whose files do not need each other."""

    def read_all(files: Sequence[Path], media: MediaSource, tally: Tally) -> list[Sample]:
        return [sample for file in files for sample in read(file, media, tally)]

    return read_all


READERS: dict[str, Reader] = {
    "cvat_video": Reader(
        one_by_one(read_cvat_video),
        looks_like_cvat_video,
        "*.xml",
        "CVAT for video 1.1 (XML with <track>)",
    ),
    "label_studio_video": Reader(
        one_by_one(read_label_studio_video),
        looks_like_label_studio_video,
        "*.json",
        "Label Studio video (JSON with videorectangle)",
    ),
    "coco": Reader(
        one_by_one(read_coco), looks_like_coco, "*.json", "COCO JSON (images and annotations)"
    ),
    "yolo": Reader(
        read_yolo, looks_like_yolo, "*.txt", "YOLO (a folder of txt files: class and shares)"
    ),
    "mot": Reader(
        one_by_one(read_mot),
        looks_like_mot,
        "**/gt.txt",
        "MOTChallenge ground truth (frame,id,left,top,width,height,…)",
    ),
    "kitti_tracking": Reader(
        one_by_one(read_kitti_tracking),
        looks_like_kitti_tracking,
        "*.txt",
        "KITTI tracking labels (17 fields: frame, track id, type, …)",
    ),
    "cvat_images": Reader(
        one_by_one(read_cvat_images),
        looks_like_cvat_images,
        "*.xml",
        "CVAT for images 1.1 (XML with <image>)",
    ),
    "label_studio_image": Reader(
        one_by_one(read_label_studio_image),
        looks_like_label_studio_image,
        "*.json",
        "Label Studio images (JSON with rectangles, polygons, keypoints, …)",
    ),
    "kitti_mots": Reader(
        read_kitti_mots,
        looks_like_kitti_mots,
        "**/*.[tp][xn][tg]",
        "KITTI MOTS (frames from 0: txt with run lengths, or 16-bit pictures)",
    ),
    "mots_challenge": Reader(
        read_mots_challenge,
        looks_like_mots_challenge,
        "**/*.[tp][xn][tg]",
        "MOTSChallenge (frames from 1: txt with run lengths, or 16-bit pictures)",
    ),
    "sav": Reader(
        one_by_one(read_sav),
        looks_like_sav,
        "*.json",
        "SA-V (JSON with masklet)",
    ),
    "mask_folder": Reader(
        read_mask_folder,
        looks_like_mask_folder,
        "**/*.png",
        "DAVIS or YouTube-VOS (folders of palette PNG)",
    ),
    "expressions": Reader(
        one_by_one(read_expressions),
        looks_like_expressions,
        "meta_expressions*.json",
        "Ref-YouTube-VOS or MeViS (JSON with expressions)",
    ),
    "youtube_vis": Reader(
        one_by_one(read_youtube_vis),
        looks_like_youtube_vis,
        "*.json",
        "YouTube-VIS JSON (videos with file_names)",
    ),
    "tao": Reader(
        one_by_one(read_tao),
        looks_like_tao,
        "*.json",
        "TAO or COCO JSON of videos (videos, images, track_id)",
    ),
    "scalabel": Reader(
        one_by_one(read_scalabel),
        looks_like_scalabel,
        "*.json",
        "BDD100K or Scalabel (JSON with videoName and labels)",
    ),
    "labelme": Reader(
        one_by_one(read_labelme), looks_like_labelme, "*.json", "LabelMe (JSON with shapes)"
    ),
    "pascal_voc": Reader(
        one_by_one(read_pascal_voc),
        looks_like_pascal_voc,
        "*.xml",
        "Pascal VOC (XML with <annotation>, one file per image)",
    ),
    "open_images": Reader(
        one_by_one(read_open_images),
        looks_like_open_images,
        "*bbox*.csv",
        "Open Images (CSV with ImageID, LabelName, XMin, XMax, …)",
    ),
    "dota": Reader(
        one_by_one(read_dota), looks_like_dota, "*.txt", "DOTA (txt: eight pixels and a class)"
    ),
    "via": Reader(
        one_by_one(read_via),
        looks_like_via,
        "*.[jc]s[ov]*",
        "VGG Image Annotator 1 and 2 (JSON, CSV)",
    ),
    "createml": Reader(
        one_by_one(read_createml), looks_like_createml, "*.json", "CreateML (JSON with coordinates)"
    ),
    "roboflow_hosted": Reader(
        one_by_one(read_roboflow_hosted),
        looks_like_roboflow_hosted,
        "*.json",
        "Roboflow predictions (JSON per image)",
    ),
    "table": Reader(
        read_table, never_looks_like, "*.[cjp][as][rvo]*", "a plain table (CSV, JSONL, Parquet)"
    ),
    "pixmo_points": Reader(
        read_pixmo_points,
        looks_like_pixmo_points,
        "*.[jp][as][ro]*",
        "PixMo-Points (Parquet, JSONL)",
    ),
    "pixmo_count": Reader(
        read_pixmo_count, looks_like_pixmo_count, "*.[jp][as][ro]*", "PixMo-Count (Parquet, JSONL)"
    ),
    "cvat_tags": Reader(
        one_by_one(read_cvat_tags),
        looks_like_cvat_tags,
        "*.xml",
        "CVAT for images 1.1 of a video task, with <tag>",
    ),
    "sot": Reader(
        one_by_one(read_sot),
        looks_like_sot,
        "**/*.txt",
        "LaSOT, GOT-10k, TrackingNet or VOT (lines of 4 or 8 numbers)",
    ),
    "activitynet": Reader(
        one_by_one(read_activitynet),
        looks_like_activitynet,
        "*.json",
        "ActivityNet JSON (annotations with segment)",
    ),
    "ava": Reader(
        one_by_one(read_ava),
        looks_like_ava,
        "*.csv",
        "AVA CSV (video,second,x1,y1,x2,y2,action,person)",
    ),
    "soccernet": Reader(
        one_by_one(read_soccernet),
        looks_like_soccernet,
        "**/*.json",
        "SoccerNet JSON (annotations with gameTime)",
    ),
    "elan": Reader(
        one_by_one(read_elan),
        looks_like_elan,
        "*.eaf",
        "ELAN (.eaf)",
    ),
    "ultralytics_track": Reader(
        read_ultralytics_track,
        looks_like_ultralytics_track,
        "*.txt",
        "Ultralytics track txt (labels/clip_12.txt: class, box, confidence, id)",
    ),
    "supervision": Reader(
        one_by_one(read_supervision),
        looks_like_supervision,
        "*.[cj]s[vo]*",
        "supervision CSVSink or JSONSink (with frame_index)",
    ),
    "deeplabcut": Reader(
        one_by_one(read_deeplabcut),
        looks_like_deeplabcut,
        "**/CollectedData_*.csv",
        "DeepLabCut CSV (scorer, bodyparts, coords)",
    ),
    "sleap": Reader(
        one_by_one(read_sleap),
        looks_like_sleap,
        "*.[sh][l5]*",
        "SLEAP (.slp or .h5, with the extra pose)",
    ),
    "tapvid_trusted": Reader(
        one_by_one(read_tapvid_trusted),
        looks_like_tapvid_trusted,
        "*.pkl",
        "TAP-Vid pickle of a source that you trust",
    ),
    "molmo2_video_point": Reader(
        read_molmo2_video_point,
        looks_like_molmo2_video_point,
        "**/*.[jpa][sar][or]*",
        "Molmo2-VideoPoint (JSON, JSONL, Parquet, Arrow)",
    ),
    "molmo2_video_track": Reader(
        read_molmo2_video_track,
        looks_like_molmo2_video_track,
        "**/*.[jpa][sar][or]*",
        "Molmo2-VideoTrack (JSON, JSONL, Parquet, Arrow)",
    ),
    "track_instruction": Reader(
        read_track_instruction,
        looks_like_track_instruction,
        "**/*.[jpa][sar][or]*",
        "molmo2-track-instruction (JSON, JSONL, Parquet, Arrow)",
    ),
    "jsonl": Reader(
        one_by_one(read_jsonl_source),
        looks_like_jsonl,
        "*.jsonl",
        "molmo-tune JSONL (lines with molmo-tune/1)",
    ),
}

_NOT_READ = {
    "a zip archive; unpack it first": r"\APK\x03\x04",
    "COCO JSON with videos": r'\A\s*\{[\s\S]*"videos"\s*:\s*\[\s*\{',
    "Label Studio without regions that are read": r'"(from|to)_name"\s*:',
}


def read_labels(
    format: str, path: Path, media: Path | None = None, layout: TableLayout | None = None
) -> tuple[list[Sample], ConversionReport]:
    """Read a label file, or all label files of a folder in the order of their names.

    Args:
        format: a name from `READERS`.
        path: the file or folder.
        media: the media file or folder; by default the folder of the labels.
        layout: what the columns of a plain table mean.

    Returns:
        At least one sample, with unique ids and in file order, and the account of what was read.

    Raises:
        UserError: an unknown format, no such file, a file of another format, or no sample in it.
    """
    reader = READERS.get(format)
    if layout is not None and format != "table":
        raise UserError("columns", f"labels: {format} has columns of its own", "labels: table")
    if reader is None:
        raise UserError("labels", f"unknown format {format!r}", f"one of {', '.join(READERS)}")
    files = _files(path, reader.pattern)
    source = MediaSource(media or (path if path.is_dir() else path.parent), given=media is not None)
    if media is not None and len(files) > 1 and media.is_file():
        found = f"a single file, for {len(files)} label files in {path}"
        raise UserError(media, found, "the folder of their media")
    tally = Tally()
    for file in files if layout is None else ():
        _check_format(format, file)
    options = {} if layout is None else {"layout": layout}
    samples: list[Sample] = reader.read(files, source, tally, **options)
    report = tally.report(format, path, len(samples))
    if not samples:
        raise _nothing_read(path, report)
    return _with_unique_ids(samples), report


def detect_format(path: Path) -> str:
    """Name of the format of a label file, or of the label files in a folder.

    Raises:
        UserError: no such file, or its format is none or several of those that are known.
    """
    found = [name for name, reader in READERS.items() if _is_of(reader, path)]
    if len(found) == 1:
        return found[0]
    if "jsonl" in found and path.is_file():  # it names itself; its labels may be any words
        return "jsonl"
    looked_for = "; ".join(f"{name}: {reader.title}" for name, reader in READERS.items())
    if found:
        fix = "name the format of the source as labels: … in the recipe"
        raise UserError(path, f"could be {' or '.join(found)}", "one format", fix)
    other = "" if path.is_dir() else _other_format(read_head(path))
    what = f"looks like {other}" if other else "not a label format that is known"
    raise UserError(path, what, f"one of {looked_for}")


def _is_of(reader: Reader, path: Path) -> bool:
    if not path.is_dir():
        return any(reader.looks_like(read_head(file)) for file in _files(path, reader.pattern))
    return any(reader.looks_like(read_head(file)) for file in _inside(path, reader.pattern))


def _files(path: Path, pattern: str) -> list[Path]:
    """The file, or the files of a folder."""
    if path.is_file():
        if not path.stat().st_size:
            raise UserError(path, "the file is empty", "labels", "export the file again")
        return [path]
    if not path.is_dir():
        raise UserError(path, "no such label file or folder", fix="check path in the recipe")
    files = _inside(path, pattern)
    if not files:
        raise UserError(
            path, f"no {pattern} in this folder", "label files", "check path and labels"
        )
    return files


def _inside(folder: Path, pattern: str) -> list[Path]:
    """Hidden files, such as those that other systems leave behind, are passed over."""
    found = (path for path in folder.glob(pattern) if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _check_format(format: str, file: Path) -> None:
    """Say what a file is that is clearly of another format; else the reader finds the fault."""
    head = read_head(file)
    if READERS[format].looks_like(head):
        return
    others = [name for name, reader in READERS.items() if reader.looks_like(head)]
    what = f"labels: {others[0]}" if others else _other_format(head)
    if what:
        expected = READERS[format].title
        raise UserError(file, f"looks like {what}", expected, "check labels and path in the recipe")


def _other_format(head: str) -> str:
    return next((name for name, sign in _NOT_READ.items() if re.search(sign, head)), "")


def _nothing_read(path: Path, report: ConversionReport) -> UserError:
    findings = (*report.losses, *report.left_out)
    why = "; ".join(str(finding) for finding in findings[:4]) or "the file holds no annotations"
    return UserError(path, "no sample could be read", "at least one", why)


def _with_unique_ids(samples: Iterable[Sample]) -> list[Sample]:
    taken: set[str] = set()
    return [replace(sample, id=unique(sample.id, taken)) for sample in samples]
