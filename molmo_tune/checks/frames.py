"""Consistency of labels and media: frame sizes, durations, shapes in the frame, times in the video.

`jsonl` labels are read without opening the media, and media may have been re-encoded since they
were labeled. Then every point is wrong, and only this check notices. Different sizes are an error;
shapes beyond the frame are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from molmo_tune.checks.finding import Finding, examples
from molmo_tune.encoding.items import Item
from molmo_tune.labels.geometry.shapes import fit
from molmo_tune.labels.sample import Dialogue, Instance, Sample, Shape, Span, Track
from molmo_tune.units import count, seconds

SLACK_S = 0.5  # containers round durations, and tools count the last frame differently
_PlacedShape = tuple[str, Shape, tuple[int, int]]  # name, shape, width and height in pixels


def check_frames(where: str, items: Iterable[Item]) -> Iterator[Finding]:
    """Yield findings about the media of these items, once for each sample."""
    media = list({(item.sample.id, item.sample.media.paths): item for item in items}.values())
    yield from _sizes(where, media)
    yield from _durations(where, media)
    yield from _shapes(where, media)


def _sizes(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    wrong = []
    for item in items:
        stated, real = item.sample.media.size_wh, _size(item)
        if stated is not None and real is not None and stated != real:
            rotated = ", rotated by 90 degrees?" if stated == real[::-1] else ""
            sizes = f"{_by(stated)} in the labels, {_by(real)} in the file{rotated}"
            wrong.append(f"{item.sample.id} ({sizes})")
    if wrong:
        number = count(len(wrong), "image or video", "images or videos")
        text = f"{number} with a size that differs from the labels: {examples(wrong)}"
        yield Finding("error", where, text, len(wrong))


def _size(item: Item) -> tuple[int, int] | None:
    if item.sampled is not None:
        return item.sampled.size_wh
    return item.sizes_wh[0] if len(item.sizes_wh) == 1 else None


def _by(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _durations(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    wrong, late = [], []
    for item in items:
        if item.sampled is None:
            continue
        stated, real = item.sample.media.duration_s, item.sampled.duration_s
        if stated is not None and abs(stated - real) > SLACK_S:
            durations = f"{seconds(stated)} in the labels, {seconds(real)} in the file"
            wrong.append(f"{item.sample.id} ({durations})")
        last = _last_time_s(item.sample)
        if last > real + SLACK_S:
            late.append(f"{item.sample.id} (labels to {seconds(last)}, video to {seconds(real)})")
    if wrong:
        number = count(len(wrong), "video")
        text = f"{number} with a duration that differs from the labels: {examples(wrong)}"
        yield Finding("warning", where, text, len(wrong))
    if late:
        text = f"{count(len(late), 'video')} with labels after the end: {examples(late)}"
        yield Finding("error", where, text, len(late))


def _last_time_s(sample: Sample) -> float:
    last = 0.0
    for note in sample.annotations:
        if isinstance(note, Track):
            last = max(last, *(seen.time_s for seen in note.observations), 0.0)
        elif isinstance(note, Span):
            last = max(last, note.end_s)
    return last


def _shapes(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    outside, clipped, num_shapes = [], [], 0
    for item in items:
        for name, shape, size_wh in _placed(item):
            num_shapes += 1
            inside, is_clipped = fit(shape, size_wh)
            if inside is None:
                outside.append(name)
            elif is_clipped:
                clipped.append(name)
    of_all = f"of {count(num_shapes, 'shape')}"
    if outside:
        text = f"{len(outside)} {of_all} outside the frame: {examples(outside)}"
        yield Finding("warning", where, text, len(outside))
    if clipped:
        text = f"{len(clipped)} {of_all} extend beyond the frame: {examples(clipped)}"
        yield Finding("note", where, text, len(clipped))


def _placed(item: Item) -> Iterator[_PlacedShape]:
    """Yield every shape of a sample except occluded ones, which labeling tools let drift."""
    for note in item.sample.annotations:
        if isinstance(note, Span | Dialogue):
            continue
        name = f"{item.sample.id} ({note.label} {note.id})"
        if isinstance(note, Instance):
            if note.image_index < len(item.sizes_wh):
                yield name, note.shape, item.sizes_wh[note.image_index]
        elif item.sampled is not None:
            for seen in note.observations:
                if not seen.occluded:
                    yield f"{name} at {seconds(seen.time_s, 2)}", seen.shape, item.sampled.size_wh
