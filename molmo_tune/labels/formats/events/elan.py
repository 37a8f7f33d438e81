"""ELAN ``.eaf``: annotations on tiers, as events of a video.

    <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="260"/> …</TIME_ORDER>
    <TIER TIER_ID="gesture"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1"
        TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2"><ANNOTATION_VALUE>waves</ANNOTATION_VALUE>…

Times: milliseconds. ``TIME_ORIGIN`` of the media file is the position of time 0 in the video, in
    milliseconds. A ``REF_ANNOTATION`` lasts as long as the annotation that it refers to.
Labels: the text of the annotation, from all tiers.
Media: the first media file with the extension of a video.
Dropped: one of several parts of an annotation (``PREVIOUS_ANNOTATION``), which has no times of its
    own; annotations whose time slots have no value.
Exhaustive labels: none.
Source: the EAF schema of ELAN. The format is small enough to read without another dependency.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text_rows import whole
from molmo_tune.labels.files.xml import Node, read_xml
from molmo_tune.labels.media_source import VIDEO_SUFFIXES, MediaSource
from molmo_tune.labels.reader import Reader, one_by_one
from molmo_tune.labels.report import Tally
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.video_objects import VideoObjects, open_video

NO_TIME = "time slots without a value"
PART = "one of several parts of an annotation, without own times"
ALIGNED, REFERRING = "ALIGNABLE_ANNOTATION", "REF_ANNOTATION"

Times = tuple[float, float]


def looks_like_elan(head: str) -> bool:
    """Return whether the head of a file looks like this format."""
    return "<ANNOTATION_DOCUMENT" in head


def read_elan(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """Return the sample of a file, as a list of at most one.

    Raises:
        UserError: the file is not XML of this format, or a name points outside the media folder.
    """
    root = read_xml(path)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "<ANNOTATION_DOCUMENT>")
    names, origin_s = _video(root)
    video = open_video(media, names, (path.stem,), str(path), tally)
    objects = VideoObjects(video, tally, str(path))
    nodes = {node.attributes.get("ANNOTATION_ID", ""): node for node in _annotations(root)}
    slots, parts = _slots(root, origin_s), _parts(nodes)
    for node in _annotations(root):
        label, place = " ".join(node.text_at("ANNOTATION_VALUE").split()), f"{path}:{node.line}"
        times = _times(node, nodes, parts, slots)
        if isinstance(times, str):
            objects.drop(label, "span", place, times)
        else:
            objects.span(label, *times, place)
    sample = objects.sample()
    return [sample] if sample is not None else []


def _times(
    node: Node, nodes: Mapping[str, Node], parts: set[str], slots: Mapping[str, float]
) -> Times | str:
    """Return start and end in seconds, or why they are missing."""
    is_part = node.attributes.get("ANNOTATION_ID") in parts
    for _ in nodes:  # a chain of references has at most all of them
        if node.tag != REFERRING:
            break
        node = nodes.get(node.attributes.get("ANNOTATION_REF", ""), node)
    if is_part:
        return PART
    start = slots.get(node.attributes.get("TIME_SLOT_REF1", ""))
    end = slots.get(node.attributes.get("TIME_SLOT_REF2", ""))
    return (start, end) if start is not None and end is not None else NO_TIME


def _parts(nodes: Mapping[str, Node]) -> set[str]:
    """Return ids of annotations that continue another, and of the continued ones."""
    previous = {id: node.attributes.get("PREVIOUS_ANNOTATION", "") for id, node in nodes.items()}
    return {id for pair in previous.items() if pair[1] for id in pair}


def _annotations(root: Node) -> Iterator[Node]:
    for tier in root.all("TIER"):
        for annotation in tier.all("ANNOTATION"):
            yield from (n for n in annotation.children if n.tag in (ALIGNED, REFERRING))


def _slots(root: Node, origin_s: float) -> dict[str, float]:
    order = root.at("TIME_ORDER")
    found = {}
    for slot in order.all("TIME_SLOT") if order is not None else ():
        value = whole(slot.attributes.get("TIME_VALUE"))
        if value is not None:
            found[slot.attributes.get("TIME_SLOT_ID", "")] = value / 1000 + origin_s
    return found


def _video(root: Node) -> tuple[tuple[str, ...], float]:
    """Return names of the video, and its time in seconds at the annotations' time 0."""
    header = root.at("HEADER")
    for node in header.all("MEDIA_DESCRIPTOR") if header is not None else ():
        urls = (node.attributes.get(key, "") for key in ("RELATIVE_MEDIA_URL", "MEDIA_URL"))
        names = tuple(filter(None, map(_last_part, urls)))
        if any(Path(name).suffix.lower() in VIDEO_SUFFIXES for name in names):
            return names, (whole(node.attributes.get("TIME_ORIGIN")) or 0) / 1000
    return (), 0.0


def _last_part(url: str) -> str:
    """Return the file name of a URL; empty for an invalid one."""
    try:
        return unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    except ValueError:
        return ""


READER = Reader(one_by_one(read_elan), looks_like_elan, "*.eaf", "ELAN (.eaf)")
