"""ELAN ``.eaf``: annotations on tiers, in milliseconds of a video.

    <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="260"/> …</TIME_ORDER>
    <TIER TIER_ID="gesture"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1"
        TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2"><ANNOTATION_VALUE>waves</ANNOTATION_VALUE>…

The label is the annotation's text, whatever its tier. A ``REF_ANNOTATION`` lasts as long as the
annotation it refers to; one of several parts of another (``PREVIOUS_ANNOTATION``) has no times of
its own and is lost, like annotations whose time slots have no value. ``TIME_ORIGIN`` of the medium
is where its time 0 lies in the video, in milliseconds. The video is the first medium that names
one; its ending decides. Read by hand: the format is small, and one more dependency is not.
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

NO_TIME = "its time slots have no times"
PART = "one of several parts of an annotation, without times of its own"
ALIGNED, REFERRING = "ALIGNABLE_ANNOTATION", "REF_ANNOTATION"

Times = tuple[float, float]


def looks_like_elan(head: str) -> bool:
    """Whether this is the beginning of such a file."""
    return "<ANNOTATION_DOCUMENT" in head


def read_elan(path: Path, media: MediaSource, tally: Tally) -> list[Sample]:
    """The sample of a file.

    Raises:
        UserError: the file is not such XML, or a name climbs out of the media folder.
    """
    root = read_xml(path)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise UserError(f"{path}:{root.line}", f"the root is <{root.tag}>", "ELAN's")
    names, origin_s = _medium(root)
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
    """Start and end in seconds, or why there are none."""
    is_part = node.attributes.get("ANNOTATION_ID") in parts
    for _ in nodes:  # a chain of references is no longer than all of them
        if node.tag != REFERRING:
            break
        node = nodes.get(node.attributes.get("ANNOTATION_REF", ""), node)
    if is_part:
        return PART
    start = slots.get(node.attributes.get("TIME_SLOT_REF1", ""))
    end = slots.get(node.attributes.get("TIME_SLOT_REF2", ""))
    return (start, end) if start is not None and end is not None else NO_TIME


def _parts(nodes: Mapping[str, Node]) -> set[str]:
    """Ids of annotations that continue another, and of those that are continued."""
    before = {id: node.attributes.get("PREVIOUS_ANNOTATION", "") for id, node in nodes.items()}
    return {id for pair in before.items() if pair[1] for id in pair}


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


def _medium(root: Node) -> tuple[tuple[str, ...], float]:
    """Names of the video, and where the annotations' time 0 lies in it."""
    header = root.at("HEADER")
    for node in header.all("MEDIA_DESCRIPTOR") if header is not None else ():
        urls = (node.attributes.get(key, "") for key in ("RELATIVE_MEDIA_URL", "MEDIA_URL"))
        names = tuple(filter(None, map(_last_part, urls)))
        if any(Path(name).suffix.lower() in VIDEO_SUFFIXES for name in names):
            return names, (whole(node.attributes.get("TIME_ORIGIN")) or 0) / 1000
    return (), 0.0


def _last_part(url: str) -> str:
    """The file's name; empty when the address is none."""
    try:
        return unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    except ValueError:
        return ""


READER = Reader(one_by_one(read_elan), looks_like_elan, "*.eaf", "ELAN (.eaf)")
