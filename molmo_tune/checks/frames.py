"""Do labels and media fit each other: frame sizes, durations, shapes inside, moments within.

Our own JSONL is read without opening media, and a medium may have been re-encoded since it was
labeled. Then every point is wrong and nothing else would tell. Sizes that differ are an error;
what merely sticks out is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from molmo_tune.checks.finding import Finding, examples
from molmo_tune.encoding.items import Item
from molmo_tune.labels.geometry.shapes import fit
from molmo_tune.labels.sample import Dialogue, Instance, Sample, Shape, Span, Track

SLACK_S = 0.5  # containers round durations, and tools count the last frame differently
_Placed = tuple[str, Shape, tuple[int, int]]  # which label, its shape, width and height in pixels


def about_frames(where: str, items: Iterable[Item]) -> Iterator[Finding]:
    """Findings about the media of these items, each medium once."""
    media = list({(item.sample.id, item.sample.media.paths): item for item in items}.values())
    yield from _sizes(where, media)
    yield from _durations(where, media)
    yield from _shapes(where, media)


def _sizes(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    wrong = []
    for item in items:
        stated, real = item.sample.media.size_wh, _size(item)
        if stated is not None and real is not None and stated != real:
            turned = ", turned by a quarter?" if stated == real[::-1] else ""
            wrong.append(f"{item.sample.id} ({_by(stated)} in the labels, is {_by(real)}{turned})")
    if wrong:
        text = f"{len(wrong)} media have another size than their labels say: {examples(wrong)}"
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
            wrong.append(f"{item.sample.id} ({stated:.1f} s in the labels, is {real:.1f} s)")
        last = _last_moment(item.sample)
        if last > real + SLACK_S:
            late.append(f"{item.sample.id} (up to {last:.1f} s, the video ends at {real:.1f} s)")
    if wrong:
        text = f"{len(wrong)} videos are longer or shorter than labeled: {examples(wrong)}"
        yield Finding("warning", where, text, len(wrong))
    if late:
        text = f"{len(late)} videos end before their labels do: {examples(late)}"
        yield Finding("error", where, text, len(late))


def _last_moment(sample: Sample) -> float:
    last = 0.0
    for note in sample.annotations:
        if isinstance(note, Track):
            last = max(last, *(seen.time_s for seen in note.observations), 0.0)
        elif isinstance(note, Span):
            last = max(last, note.end_s)
    return last


def _shapes(where: str, items: Sequence[Item]) -> Iterator[Finding]:
    outside, cut, num_shapes = [], [], 0
    for item in items:
        for name, shape, size_wh in _placed(item):
            num_shapes += 1
            inside, is_cut = fit(shape, size_wh)
            if inside is None:
                outside.append(name)
            elif is_cut:
                cut.append(name)
    if outside:
        text = f"{len(outside)} of {num_shapes} shapes lie outside the frame: {examples(outside)}"
        yield Finding("warning", where, text, len(outside))
    if cut:
        text = f"{len(cut)} of {num_shapes} shapes reach over the edge: {examples(cut)}"
        yield Finding("note", where, text, len(cut))


def _placed(item: Item) -> Iterator[_Placed]:
    """Every shape of a medium, hidden ones left away: tools let these drift."""
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
                    place = f"{name} at {seen.time_s:.2f} s"
                    yield place, seen.shape, item.sampled.size_wh
