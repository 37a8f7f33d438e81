"""The pictures of chosen frames, by PyAV: enter at key frames, decode no more than is needed.

    wanted frames → runs: each enters at the last key frame before its first frame, and goes on as
    long as no later key frame comes before the next wanted one
    in a run: packets up to the last wanted one in *file* order, then the decoder is drained
    frames that no other frame refers to are not decoded unless wanted (H.264: half of a usual clip)

A decoded picture is matched by its presentation time. If a wanted one does not come (an entry that
was none, a decoder that needs more), the file is decoded once more from its start, and what does
not come then is an error: no other frame stands in for it, and no picture that the decoder patched
up is passed on.

What it does not do: choose frames, or keep time (`background`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError
from molmo_tune.media.decode_timeout import in_background
from molmo_tune.media.frame_index import FIX, FrameIndex, reason, turned

Picture = tuple[int, NDArray[np.uint8]]
_UNREFERENCED_ARE_FREE = ("h264",)  # codecs that say which frames no other frame refers to
_NO_LIMIT_S = 1e6  # whoever asks for pictures keeps the time
_NO_PATCHING = {"err_detect": "explode"}  # damage is an error, not a smear


def decode_frames(path: Path, index: FrameIndex, numbers: Sequence[int]) -> Iterator[Picture]:
    """Frame numbers with their upright RGB pictures ``(H, W, 3)``, each once.

    Args:
        path: of the file.
        index: of the file.
        numbers: distinct, increasing.

    Raises:
        UserError: a frame does not decode, or has another size than the first.
    """
    import av

    missing = set(numbers)
    for runs in (_runs(index, numbers), None):
        why = "the decoder passed over them"
        try:
            decoded = _decode_all(path, index, missing.copy(), runs)
            for number, upright in in_background(decoded, _NO_LIMIT_S, where=path):
                missing.discard(number)
                yield number, upright()
        except (av.FFmpegError, OSError, _WrongEntryError) as error:
            why = reason(error)
        if not missing:
            return
    raise does_not_decode(path, index, sorted(missing), why)


def does_not_decode(
    path: Path, index: FrameIndex, numbers: Sequence[int], why: str, fix: str = FIX
) -> UserError:
    """The error for frames that could not be had."""
    first_s = float((int(index.starts[numbers[0]]) - int(index.starts[0])) * index.tick_s)
    frames = f"frame {numbers[0]} (at {first_s:.2f} s)"
    more = f" and {len(numbers) - 1} others" if len(numbers) > 1 else ""
    return UserError(f"{path}: {frames}{more}", f"does not decode ({why})", fix=fix)


def _runs(index: FrameIndex, numbers: Sequence[int]) -> list[list[int]]:
    """Wanted frames, divided where it pays to enter anew."""
    runs: list[list[int]] = []
    reached = -1  # packets of the file that the current run decodes anyway
    for number in numbers:
        entry = _entry(index, number)
        position = 0 if entry is None else int(index.entry_order[entry])
        if runs and position <= reached + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
        reached = max(reached, int(index.order[number]))
    return runs


def _entry(index: FrameIndex, number: int) -> int | None:
    """The last entry that is shown no later than a frame; None: begin at the start."""
    place = int(np.searchsorted(index.entries[:, 0], index.starts[number], side="right")) - 1
    return place if place >= 0 and index.entry_order[place] > 0 else None


def _decode_all(
    path: Path, index: FrameIndex, wanted: set[int], runs: list[list[int]] | None
) -> Iterator[tuple[int, Callable[[], NDArray[np.uint8]]]]:
    """Decode by runs; without them from the start, skipping nothing.

    Pictures are turned into RGB by whoever takes them, while the next are decoded.
    """
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_count = 1  # loaders have a process per core already
        context.options = dict(_NO_PATCHING)
        skips = runs is not None and context.name in _UNREFERENCED_ARE_FREE
        to_rgb = _rgb_graph(stream)
        for run in runs if runs is not None else [sorted(wanted)]:
            entry = _entry(index, run[0]) if runs is not None else None
            packets = _packets_from(container, stream, index, entry)
            for frame in _decode_run(packets, context, index, run, skips):
                number = int(np.searchsorted(index.starts, frame.pts))
                yield number, partial(_upright, path, index, to_rgb, frame)


def _packets_from(
    container: Any, stream: Any, index: FrameIndex, entry: int | None
) -> Iterator[Any]:
    """Packets from an entry on, without those that are shown before it and need what is skipped.

    Raises:
        _WrongEntryError: the container does not find the entry exactly.
    """
    if entry is None:
        yield from container.demux(stream)
        return
    pts, dts = index.entries[entry].tolist()
    for time in (pts, dts):  # containers differ in which of them they look up
        container.seek(time, stream=stream)
        packets = container.demux(stream)
        first = next(packets)
        if first.pts == pts and first.is_keyframe:
            break
    else:
        raise _WrongEntryError(f"entering at {pts} ends at {first.pts}")
    yield first
    yield from (p for p in packets if p.pts is None or p.pts > pts)


class _WrongEntryError(Exception):
    """A seek did not end where the index says a key frame is."""


def _decode_run(
    packets: Iterator[Any], context: Any, index: FrameIndex, run: list[int], skips: bool
) -> Iterator[Any]:
    """Decoded frames of one run, in the order they are shown."""
    wanted = {int(index.starts[number]) for number in run}
    last = int(index.starts[max(run, key=lambda number: int(index.order[number]))])
    for packet in packets:
        if skips:
            is_free = packet.pts is not None and packet.pts not in wanted
            context.skip_frame = "NONREF" if is_free else "DEFAULT"
        yield from (frame for frame in packet.decode() if frame.pts in wanted)
        if packet.pts == last and packet.size:
            yield from (frame for frame in context.decode(None) if frame.pts in wanted)
            return


def _rgb_graph(stream: Any) -> Any:
    """The conversion that the ffmpeg command makes for ``-pix_fmt rgb24``, bit for bit."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(template=stream)
    source.link_to(step := graph.add("format", "pix_fmts=rgb24"))
    step.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _upright(path: Path, index: FrameIndex, to_rgb: Any, frame: Any) -> NDArray[np.uint8]:
    to_rgb.push(frame)
    picture = turned(to_rgb.pull().to_ndarray(), index.turn)
    if picture.shape[1::-1] != index.size_wh:
        found = f"pictures change from {index.size_wh} to {picture.shape[1::-1]}"
        raise UserError(path, found, "one size", FIX)
    return picture
